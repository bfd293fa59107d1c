"""Random access to the samples of WebDataset tars: where their members lie is read from the headers, once per shard.

WebDataset writes the shards (`v2m.data.writer`), and its own reader reads them; ours is needed for two properties that
it does not have. Training resumes at any sample, which takes random access in place of a stream; and damage is never
taken for the end of a shard: tar readers stop at a broken header, while here every shard has the size and the number of
samples of the manifest, or is refused. Nothing in a member is ever run.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from v2m.core.errors import DependencyError
from v2m.data.schema import MEMBERS, Manifest, Shard

MAX_MEMBER_BYTES = 256 << 20
OnCorrupt = Literal["refuse", "skip"]

logger = logging.getLogger(__name__)


class CorruptSampleError(ValueError):
    """One sample cannot be used; the message names the reason."""


class ShardReader:
    """The samples of a folder, by index.

    Args:
        folder: Folder of the tars and their manifest.
        on_corrupt: "refuse" a shard that differs from the manifest, or "skip" the samples that it lacks.
        verify_hashes: Whether each shard is first read completely and compared with its SHA-256.

    Raises:
        DependencyError: There is no dataset, or it is damaged; names all problems.
    """

    def __init__(self, folder: Path, *, on_corrupt: OnCorrupt = "refuse", verify_hashes: bool = False) -> None:
        self.folder, self.manifest, self.on_corrupt = folder, Manifest.read(folder), on_corrupt
        if self.manifest.num_samples < 1:
            raise DependencyError(f"{str(folder)!r} holds no samples: prepare some videos with v2m prepare")
        reports = (_shard_problem(folder, shard, verify_hashes) for shard in self.manifest.shards)
        problems = [problem for problem in reports if problem is not None]
        if problems and on_corrupt == "refuse":
            raise DependencyError(f"{str(folder)!r}: {'; '.join(problems)}: copy or prepare it again")
        for problem in problems:
            logger.warning("%s: %s", folder, problem)
        self._cumulative = list(accumulate(shard.num_samples for shard in self.manifest.shards))
        self._indexes: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.manifest.num_samples

    def read_members(self, index: int) -> dict[str, bytes]:
        """Return the members of a sample.

        Raises:
            CorruptSampleError: It cannot be read, or lacks a member.
            DependencyError: Its shard differs from the manifest.
        """
        assert 0 <= index < len(self), f"there is no sample {index}"
        shard_number = bisect_right(self._cumulative, index)
        shard = self.manifest.shards[shard_number]
        row = index - (self._cumulative[shard_number] - shard.num_samples)
        locations = self._shard_index(shard_number)
        if row >= len(locations):
            raise CorruptSampleError(f"{shard.file} lacks sample {row}")
        members: dict[str, bytes] = {}
        with (self.folder / shard.file).open("rb") as file:
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
            path = self.folder / shard.file
            try:
                locations = index_tar(path)
            except OSError as error:
                raise DependencyError(f"{str(path)!r} cannot be read ({error.strerror})") from error
            if len(locations) != shard.num_samples:
                message = f"{str(path)!r} is damaged: {len(locations)} samples instead of {shard.num_samples}"
                if self.on_corrupt == "refuse":
                    raise DependencyError(
                        f"{message}; copy or prepare it again, or go on without them: on_corrupt: skip"
                    )
                logger.warning(message)
            self._indexes[shard_number] = locations
        return self._indexes[shard_number]


def index_tar(path: Path) -> np.ndarray:
    """Return (N, M, 2) offset and size in bytes of each of the M `MEMBERS` of the N samples of a tar, −1 for none.

    As in WebDataset a sample is a run of members with the same name up to the first dot.
    """
    rows: list[list[tuple[int, int]]] = []
    last_key: str | None = None
    try:
        with tarfile.open(path, "r:") as tar:  # never a compressed one, of which a little may unpack to a lot
            for member in tar:
                key, _, extension = member.name.rpartition("/")[2].partition(".")
                if not member.isfile() or extension not in MEMBERS:
                    continue
                if key != last_key:
                    rows.append([(-1, -1)] * len(MEMBERS))
                    last_key = key
                rows[-1][MEMBERS.index(extension)] = (member.offset_data, member.size)
    except tarfile.TarError:  # members before it count; the manifest decides whether they are all
        pass
    return np.array(rows, dtype=np.int64).reshape(-1, len(MEMBERS), 2)


def _shard_problem(folder: Path, shard: Shard, verify_hashes: bool) -> str | None:
    path = folder / shard.file
    if Path(shard.file).name != shard.file or ":" in shard.file:
        raise DependencyError(f"{str(folder)!r} names a shard outside itself and is refused: {shard.file!r}")
    if not path.is_file():
        return f"{shard.file} is missing"
    size = path.stat().st_size
    if size != shard.num_bytes:
        return f"{shard.file} has {size} bytes instead of {shard.num_bytes}"
    if verify_hashes:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                return f"{shard.file} is not the file that was prepared (another SHA-256)"
    return None
