"""Writing of WebDataset shards: the same samples give the same bytes; no file is incomplete.

The samples of one video are a part: the blocks of a tar without its end. A shard is parts in a row, and an end. A part
lies in a file of its own until a shard holds it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

os.environ.setdefault("WDS_SECURE", "1")  # before it is imported: webdataset runs no command and unpickles nothing
from webdataset.writer import TarWriter

from v2m.core.atomic import TEMPORARY_GLOB, atomic_write
from v2m.core.errors import UsageError
from v2m.data.schema import DTYPES, META, Manifest, Meta, Shard

PARTS_DIR = ".parts"
TAR_END = bytes(2 * tarfile.BLOCKSIZE)
CHUNK_BYTES = 1 << 20
Arrays = dict[str, np.ndarray]  # by member name
EncodedSample = tuple[Meta, Arrays]
Location = tuple[Path, int]  # a file and the offset of a part in it, in bytes


@dataclass(frozen=True)
class VideoPart:
    """The samples written for one video; `key` is that of its source."""

    key: str
    num_samples: int
    duration: float
    num_bytes: int
    sha256: str


def remove_partial(folder: Path) -> None:
    """Remove the temporary files that a killed run left."""
    for path in [*folder.glob(TEMPORARY_GLOB), *(folder / PARTS_DIR).glob(TEMPORARY_GLOB)]:
        path.unlink()


def part_path(out: Path, key: str) -> Path:
    return out / PARTS_DIR / f"{key}.part"


def write_part(out: Path, key: str, samples: Iterable[EncodedSample], manifest: Manifest) -> VideoPart:
    """Write the samples of the source `key`, which must match the manifest, below `out`."""
    count, seconds, size, digest = 0, 0.0, 0, hashlib.sha256()
    with atomic_write(part_path(out, key)) as file:
        for meta, arrays in samples:
            blocks = _tar_blocks(meta, arrays, manifest)
            file.write(blocks)
            digest.update(blocks)
            count, seconds, size = count + 1, seconds + meta.duration, size + len(blocks)
    return VideoPart(key, count, round(seconds, 6), size, digest.hexdigest())


def _tar_blocks(meta: Meta, arrays: Arrays, manifest: Manifest) -> bytes:
    """Encode one sample as WebDataset writes it, without the end of a tar."""
    shapes = manifest.shapes(meta)
    assert set(arrays) == set(shapes), f"{sorted(arrays)} are not the members of a sample"
    description = json.dumps(asdict(meta), ensure_ascii=False, sort_keys=True).encode(errors="backslashreplace")
    payloads = {name: _npy_bytes(arrays[name], name, shape, manifest) for name, shape in shapes.items()}
    file = io.BytesIO()
    with TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False) as tar:
        tar.write({"__key__": meta.key, META: description, **payloads})
        end = tar.tarstream.offset
    return file.getvalue()[:end]


def _npy_bytes(array: np.ndarray, name: str, shape: Sequence[int | None], manifest: Manifest) -> bytes:
    fits = len(shape) == array.ndim and all(size in (None, dim) for size, dim in zip(shape, array.shape, strict=True))
    assert fits, f"{name} is {array.shape}, not {shape}"
    dtype = np.dtype(DTYPES[name])
    if dtype.kind == "i":
        in_range = 0 <= array.min() <= array.max() < manifest.codebook_size
        assert in_range, f"{name} has codes beyond {manifest.codebook_size}"
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array.astype(dtype))
    assert np.isfinite(stored).all(), f"{name} has values that {dtype} cannot hold"
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, stored, allow_pickle=False)
    return buffer.getvalue()


def assemble_shards(
    out: Path, parts: Sequence[VideoPart], known: dict[str, Shard], max_samples: int, max_megabytes: float
) -> list[Shard]:
    """Write the shards of all `parts` in order, within both limits per shard (but for a larger part).

    A shard is named by its number and a hash of its content, so that an existing one is kept. `known` holds the shards
    of the manifest so far, by name.
    """
    numbered = enumerate(_group(parts, max_samples, max_megabytes))
    groups = {_shard_name(number, group): group for number, group in numbered}
    sizes = {name: sum(part.num_bytes for part in group) + len(TAR_END) for name, group in groups.items()}
    complete = {name for name in groups if (out / name).is_file() and (out / name).stat().st_size == sizes[name]}
    locations = {} if len(complete) == len(groups) else locate_parts(out)
    shards = []
    for name, group in groups.items():
        if name not in complete:
            _write_shard(out / name, group, out, locations)
        shard = known.get(name) if name in complete else None
        if shard is None or shard.num_bytes != sizes[name]:
            shard = _describe_shard(out / name, group)
        for part in group:
            part_path(out, part.key).unlink(missing_ok=True)
        shards.append(shard)
    return shards


def _group(parts: Sequence[VideoPart], max_samples: int, max_megabytes: float) -> list[list[VideoPart]]:
    groups: list[list[VideoPart]] = []
    count = size = 0
    for part in parts:
        count, size = count + part.num_samples, size + part.num_bytes
        if not groups or count > max_samples or size > max_megabytes * 1e6:
            groups.append([])
            count, size = part.num_samples, part.num_bytes
        groups[-1].append(part)
    return groups


def _shard_name(number: int, group: Sequence[VideoPart]) -> str:
    digest = hashlib.sha256("".join(part.sha256 for part in group).encode()).hexdigest()
    return f"{number:06d}-{digest[:10]}.tar"


def locate_parts(out: Path) -> dict[str, list[Location]]:
    """Return the locations of parts in existing shards by source key; in a damaged one up to the damage."""
    locations: dict[str, list[Location]] = {}
    for path in sorted(out.glob("*.tar")):
        last = ""
        with suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
            for member in tar:
                key = member.name.partition(".")[0].rpartition("_")[0]
                if key != last:
                    locations.setdefault(key, []).append((path, member.offset))
                last = key
    return locations


def _write_shard(path: Path, group: Sequence[VideoPart], out: Path, locations: dict[str, list[Location]]) -> None:
    with atomic_write(path) as file:
        for part in group:
            candidates = [(part_path(out, part.key), 0), *locations.get(part.key, [])]
            location = next((location for location in candidates if _contains(*location, part)), None)
            if location is None:
                problem = f"the samples {part.key!r} have been changed or removed"
                raise UsageError(f"{str(out)!r}: {problem}: give a new folder")
            for chunk in _read_chunks(*location, part.num_bytes):
                file.write(chunk)
        file.write(TAR_END)


def _contains(path: Path, start: int, part: VideoPart) -> bool:
    if not path.is_file():
        return False
    digest = hashlib.sha256()
    for chunk in _read_chunks(path, start, part.num_bytes):
        digest.update(chunk)
    return digest.hexdigest() == part.sha256


def _read_chunks(path: Path, start: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as source:
        source.seek(start)
        while size > 0 and (chunk := source.read(min(CHUNK_BYTES, size))):
            size -= len(chunk)
            yield chunk


def _describe_shard(path: Path, group: Sequence[VideoPart]) -> Shard:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    seconds = round(sum(part.duration for part in group), 6)
    return Shard(path.name, path.stat().st_size, digest, sum(part.num_samples for part in group), seconds)
