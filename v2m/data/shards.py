"""WebDataset's tars, read at any place: where the samples' members lie is learned from the headers, once a shard.

Reading from begin to end would hide what is damaged: tar readers take a broken header for the end. Here every shard has
the size, and as many samples, as the manifest says, or is refused. Nothing in a member is ever run.
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

MAX_MEMBER_BYTES = 256 << 20  # bytes of a member
OnCorrupt = Literal["refuse", "skip"]

logger = logging.getLogger(__name__)


class CorruptSampleError(ValueError):
    """One sample cannot be used; the line says why."""


class ShardReader:
    """The samples of a folder, by number.

    Args:
        folder: Holds the tars and their manifest.
        damaged: What is done about a shard that is not as the manifest says: "refuse" it, or "skip" what it lacks.
        hashes: Whether each shard is read through and compared with its SHA-256 first.

    Raises:
        DependencyError: There is no dataset, or it is damaged; all that is wrong is told.
    """

    def __init__(self, folder: Path, *, damaged: OnCorrupt = "refuse", hashes: bool = False) -> None:
        self.folder, self.manifest, self.damaged = folder, Manifest.read(folder), damaged
        if self.manifest.samples < 1:
            raise DependencyError(f"{str(folder)!r} holds no samples: prepare some videos with v2m prepare")
        problems = [found for shard in self.manifest.shards if (found := _shard_problem(folder, shard, hashes))]
        if problems and damaged == "refuse":
            raise DependencyError(f"{str(folder)!r}: {'; '.join(problems)}: copy or prepare it again")
        for problem in problems:
            logger.warning("%s: %s", folder, problem)
        self._ends = list(accumulate(shard.samples for shard in self.manifest.shards))
        self._places: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.manifest.samples

    def raw(self, number: int) -> dict[str, bytes]:
        """The members of a sample.

        Raises:
            BadSampleError: It cannot be read, or lacks a member.
            DependencyError: Its shard does not hold what the manifest says.
        """
        assert 0 <= number < len(self), f"there is no sample {number}"
        which = bisect_right(self._ends, number)
        shard = self.manifest.shards[which]
        inside = number - (self._ends[which] - shard.samples)
        places = self._of(which)
        if inside >= len(places):
            raise CorruptSampleError(f"{shard.file} lacks sample {inside}")
        found: dict[str, bytes] = {}
        with (self.folder / shard.file).open("rb") as file:
            for name, (begin, size) in zip(MEMBERS, places[inside].tolist(), strict=True):
                if begin < 0 or size > MAX_MEMBER_BYTES:
                    raise CorruptSampleError(
                        f"sample {inside} of {shard.file} has {'no' if begin < 0 else 'a huge'} {name}"
                    )
                file.seek(begin)
                found[name] = file.read(size)
                if len(found[name]) < size:
                    raise CorruptSampleError(f"sample {inside} of {shard.file} ends early, in {name}")
        return found

    def _of(self, which: int) -> np.ndarray:
        if which not in self._places:
            shard = self.manifest.shards[which]
            try:
                places = index_tar(self.folder / shard.file)
            except OSError as error:
                raise DependencyError(f"{str(self.folder / shard.file)!r} cannot be read ({error.strerror})") from error
            if len(places) != shard.samples:
                said = f"{str(self.folder / shard.file)!r} is damaged: {len(places)} samples instead of {shard.samples}"
                if self.damaged == "refuse":
                    raise DependencyError(f"{said}; copy or prepare it again, or go on without them: damaged: skip")
                logger.warning(said)
            self._places[which] = places
        return self._places[which]


def index_tar(path: Path) -> np.ndarray:
    """(N, M, 2) begin and size in bytes of each of the M `MEMBERS` of the N samples of a tar, −1 where there is none.

    As in WebDataset a sample is what follows each other with the same name up to the first dot.
    """
    rows: list[list[tuple[int, int]]] = []
    last: str | None = None
    try:
        with tarfile.open(path, "r:") as tar:  # never a compressed one, of which a little may unpack to a lot
            for member in tar:
                key, _, extension = member.name.rpartition("/")[2].partition(".")
                if not member.isfile() or extension not in MEMBERS:
                    continue
                if key != last:
                    rows.append([(-1, -1)] * len(MEMBERS))
                    last = key
                rows[-1][MEMBERS.index(extension)] = (member.offset_data, member.size)
    except tarfile.TarError:  # what came before it counts; the manifest says whether that is all
        pass
    return np.array(rows, dtype=np.int64).reshape(-1, len(MEMBERS), 2)


def _shard_problem(folder: Path, shard: Shard, hashes: bool) -> str | None:
    path = folder / shard.file
    if Path(shard.file).name != shard.file or ":" in shard.file:
        raise DependencyError(f"{str(folder)!r} names a shard outside itself and is refused: {shard.file!r}")
    if not path.is_file():
        return f"{shard.file} is missing"
    size = path.stat().st_size
    if size != shard.size:
        return f"{shard.file} has {size} bytes instead of {shard.size}"
    if hashes:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                return f"{shard.file} is not the file that was prepared (another SHA-256)"
    return None
