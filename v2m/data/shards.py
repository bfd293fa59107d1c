"""Samples of WebDataset shards by index, as arrays checked against the manifest.

WebDataset's own reader can read the shards too, but gives a stream. An index of each tar's members gives random access,
by which training resumes at any position (`v2m.data.sampler`), and reports a damaged shard by name: tar readers take a
broken header for the end, while here size and number of samples must be the manifest's. No member is unpickled or run.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from v2m.core.errors import DependencyError, error_text
from v2m.data.schema import CODES, DTYPES, EVENTS, FRAMES, LONG_TERM, MEMBERS, META, TEXT, Manifest, Meta, Shard

MAX_MEMBER_BYTES = 256 << 20
CURE = "the shards and their dataset.json do not belong together; prepare them again"
OnCorrupt = Literal["refuse", "skip"]

logger = logging.getLogger(__name__)


class CorruptSampleError(ValueError):
    """One sample cannot be used; the message names the reason."""


class ShardReader:
    """The samples of one or several folders, by index.

    `on_corrupt` refuses a shard that differs from the manifest, or skips the samples that it lacks; `verify_hashes`
    first compares all of each shard with its SHA-256. Raises DependencyError with all problems of a dataset.
    """

    def __init__(self, *folders: Path, on_corrupt: OnCorrupt = "refuse", verify_hashes: bool = False) -> None:
        manifests = {str(folder): Manifest.read(folder) for folder in folders}
        for folder in folders:
            _check_folder(folder, manifests[str(folder)], on_corrupt, verify_hashes)
        self.manifest, self.on_corrupt = Manifest.joined(manifests), on_corrupt
        self._paths = [Path(folder, shard.file) for folder, each in manifests.items() for shard in each.shards]
        self._cumulative = list(accumulate(shard.num_samples for shard in self.manifest.shards))
        self._indexes: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.manifest.num_samples

    def read_members(self, index: int) -> dict[str, bytes]:
        """Return the members of a sample.

        Raises CorruptSampleError where it cannot be read or lacks one, DependencyError where its shard differs from the
        manifest.
        """
        assert 0 <= index < len(self), f"there is no sample {index}"
        shard_number = bisect_right(self._cumulative, index)
        shard = self.manifest.shards[shard_number]
        row = index - (self._cumulative[shard_number] - shard.num_samples)
        locations = self._shard_index(shard_number)
        if row >= len(locations):
            raise CorruptSampleError(f"{shard.file} lacks sample {row}")
        members: dict[str, bytes] = {}
        with self._paths[shard_number].open("rb") as file:
            for name, (offset, size) in zip(MEMBERS, locations[row].tolist(), strict=True):
                if offset < 0 or size > MAX_MEMBER_BYTES:
                    fault = "no" if offset < 0 else "a huge"
                    raise CorruptSampleError(f"sample {row} of {shard.file} has {fault} {name}")
                file.seek(offset)
                members[name] = file.read(size)
                if len(members[name]) < size:
                    raise CorruptSampleError(f"sample {row} of {shard.file} ends early, in {name}")
        return members

    def _shard_index(self, shard_number: int) -> np.ndarray:
        if shard_number not in self._indexes:
            shard = self.manifest.shards[shard_number]
            path = self._paths[shard_number]
            try:
                locations = index_tar(path)
            except FileNotFoundError:  # reported when the folder was opened, and refused there unless they are skipped
                locations = np.empty((0, len(MEMBERS), 2), np.int64)
            except OSError as error:
                raise DependencyError(f"{str(path)!r} cannot be read ({error.strerror})") from error
            if len(locations) != shard.num_samples:
                message = f"{str(path)!r} is damaged: {len(locations)} samples instead of {shard.num_samples}"
                if self.on_corrupt == "refuse":
                    cure = "copy or prepare it again, or go on without them: on_corrupt: skip"
                    raise DependencyError(f"{message}; {cure}")
                logger.warning(message)
            self._indexes[shard_number] = locations
        return self._indexes[shard_number]


def index_tar(path: Path) -> np.ndarray:
    """Return (N, M, 2) offset and size of the M `MEMBERS` of the N samples of a tar, −1 for none.

    As in WebDataset a sample is a run of members with the same name up to the first dot.
    """
    rows: list[list[tuple[int, int]]] = []
    last_key: str | None = None
    # Members before an error count; the manifest decides whether they are all. Never a compressed tar, of which a
    # little may unpack to a lot.
    with suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, extension = member.name.rpartition("/")[2].partition(".")
            if not member.isfile() or extension not in MEMBERS:
                continue
            if key != last_key:
                rows.append([(-1, -1)] * len(MEMBERS))
                last_key = key
            rows[-1][MEMBERS.index(extension)] = (member.offset_data, member.size)
    return np.array(rows, dtype=np.int64).reshape(-1, len(MEMBERS), 2)


def size_problems(name: str, manifest: Manifest, sizes: Mapping[str, int]) -> list[str]:
    """Return which shards are missing or have another size than the manifest says.

    `sizes` are those of the files. Raises DependencyError for a manifest that names a file outside of its folder or
    address, `name`.
    """
    problems = []
    for shard in manifest.shards:
        if Path(shard.file).name != shard.file or ":" in shard.file:
            raise DependencyError(f"{name!r} names a shard outside itself and is refused: {shard.file!r}")
        size = sizes.get(shard.file)
        if size is None:
            problems.append(f"{shard.file} is missing")
        elif size != shard.num_bytes:
            problems.append(f"{shard.file} has {size} bytes instead of {shard.num_bytes}")
    return problems


def report_problems(name: str, problems: Sequence[str], on_corrupt: OnCorrupt) -> None:
    """Raise DependencyError with the problems of a dataset, or log them where it is read nevertheless."""
    if problems and on_corrupt == "refuse":
        raise DependencyError(f"{name!r}: {'; '.join(problems)}: copy or prepare it again")
    for problem in problems:
        logger.warning("%s: %s", name, problem)


def _check_folder(folder: Path, manifest: Manifest, on_corrupt: OnCorrupt, verify_hashes: bool) -> None:
    """Log the problems of a dataset, or raise DependencyError with all of them."""
    name, paths = str(folder), {shard.file: folder / shard.file for shard in manifest.shards}
    sizes = {file: path.stat().st_size for file, path in paths.items() if path.is_file()}
    problems = size_problems(name, manifest, sizes)
    if verify_hashes:
        whole = (shard for shard in manifest.shards if sizes.get(shard.file) == shard.num_bytes)
        problems += filter(None, (_hash_problem(folder, shard) for shard in whole))
    report_problems(name, problems, on_corrupt)


def _hash_problem(folder: Path, shard: Shard) -> str | None:
    with (folder / shard.file).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            return f"{shard.file} is not the file that was prepared (another SHA-256)"
    return None


class Sample(NamedTuple):
    """The members of a sample; `v2m.data.schema` has the letters of the shapes."""

    meta: Meta
    codes: np.ndarray  # (K, T)
    frames: np.ndarray  # (F, P, W)
    long_term: np.ndarray  # (G, P, W)
    events: np.ndarray  # (R, C)
    text: np.ndarray  # (L, D)


def decode(members: Mapping[str, bytes], manifest: Manifest) -> Sample:
    """Decode the members of a sample.

    Raises CorruptSampleError where it is broken (no JSON, no array, a wrong number of steps, NaN, codes out of range),
    DependencyError where types, dimensions or codebooks are not the manifest's.
    """
    meta = _parse_meta(members[META])
    arrays = {name: _parse_array(name, members[name], meta.key) for name in DTYPES}
    for name, shape in manifest.shapes(meta).items():
        _check_shape(name, arrays[name], shape, meta.key)
    codes = arrays[CODES]
    if codes.min() < 0 or codes.max() >= manifest.codebook_size:
        raise CorruptSampleError(f"sample {meta.key!r} has codes outside 0–{manifest.codebook_size - 1}")
    return Sample(meta, codes, arrays[FRAMES], arrays[LONG_TERM], arrays[EVENTS], arrays[TEXT])


def _parse_meta(payload: bytes) -> Meta:
    try:
        meta = Meta(**json.loads(payload))
        seconds = [float(value) for value in (meta.start, meta.duration, meta.video_duration)]
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptSampleError(f"a sample's description cannot be read ({error_text(error)})") from None
    if not np.isfinite(seconds).all() or meta.duration <= 0 or meta.video_duration <= 0:
        raise CorruptSampleError(f"sample {meta.key!r} lasts {meta.duration} s of {meta.video_duration} s")
    return meta


def _parse_array(name: str, payload: bytes, key: str) -> np.ndarray:
    try:
        array = np.lib.format.read_array(io.BytesIO(payload), allow_pickle=False)
    except (ValueError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise CorruptSampleError(f"sample {key!r}: {name} is no array ({error_text(error, 100)})") from None
    if array.dtype.name != DTYPES[name]:
        raise DependencyError(f"sample {key!r}: {name} holds {array.dtype.name}, not {DTYPES[name]}: {CURE}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CorruptSampleError(f"sample {key!r}: {name} holds values that are no numbers")
    return array


def _check_shape(name: str, array: np.ndarray, shape: tuple[int | None, ...], key: str) -> None:
    """Compare a shape: a wrong number of time steps is a corrupt sample, all else another schema."""
    differing = [axis for axis, size in enumerate(shape) if size not in {None, *array.shape[axis : axis + 1]}]
    if array.ndim == len(shape) and not differing:
        return
    expected = ", ".join("any" if size is None else str(size) for size in shape)
    message = f"sample {key!r}: {name} has the shape {array.shape} instead of ({expected})"
    time_axis = 1 if name == CODES else 0
    if name != LONG_TERM and array.ndim == len(shape) and differing == [time_axis]:
        raise CorruptSampleError(message)
    raise DependencyError(f"{message}: {CURE}")
