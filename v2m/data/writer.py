"""Samples into tars: the same samples give the same bytes, and a file is there whole or not at all.

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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

os.environ.setdefault("WDS_SECURE", "1")  # before it is imported: webdataset runs no command and unpickles nothing
from webdataset.writer import TarWriter

from v2m.core.atomic import fsync_dir
from v2m.core.errors import UsageError
from v2m.data.schema import DTYPES, META, Manifest, Meta, Shard

PARTS_DIR = ".parts"
PARTIAL_PREFIX = ".unfinished-"
TAR_END = bytes(2 * tarfile.BLOCKSIZE)
CHUNK_BYTES = 1 << 20
Sample = tuple[Meta, dict[str, np.ndarray]]


@dataclass(frozen=True)
class VideoPart:
    """Files written for one video: `key` is that of its source."""

    key: str
    num_samples: int
    duration: float
    num_bytes: int
    sha256: str


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends well, and is on the disk then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Removes what a run that was killed left unfinished."""
    for left in [*folder.glob(f"{PARTIAL_PREFIX}*"), *(folder / PARTS_DIR).glob(f"{PARTIAL_PREFIX}*")]:
        left.unlink()


def part_path(out: Path, key: str) -> Path:
    return out / PARTS_DIR / f"{key}.part"


def write_part(out: Path, key: str, samples: Iterable[Sample], manifest: Manifest) -> VideoPart:
    """Writes the samples of the source `key` below `out`. They must be as the manifest says."""
    count, seconds, size, digest = 0, 0.0, 0, hashlib.sha256()
    with atomic_write(part_path(out, key)) as file:
        for meta, arrays in samples:
            blocks = _tar_blocks(meta, arrays, manifest)
            file.write(blocks)
            digest.update(blocks)
            size += len(blocks)
            count, seconds = count + 1, seconds + meta.duration
    return VideoPart(key, count, round(seconds, 6), size, digest.hexdigest())


def _tar_blocks(meta: Meta, arrays: dict[str, np.ndarray], manifest: Manifest) -> bytes:
    """One sample as WebDataset writes it, without the end of a tar: the same sample gives the same bytes."""
    shapes = manifest.shapes(meta)
    assert set(arrays) == set(shapes), f"{sorted(arrays)} are not the members of a sample"
    said = json.dumps(asdict(meta), ensure_ascii=False, sort_keys=True).encode(errors="backslashreplace")
    members = {META: said, **{name: _npy_bytes(arrays[name], name, shapes[name], manifest) for name in shapes}}
    file = io.BytesIO()
    with TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False) as tar:
        tar.write({"__key__": meta.key, **members})
        end = tar.tarstream.offset
    return file.getvalue()[:end]


def _npy_bytes(array: np.ndarray, name: str, shape: Sequence[int | None], manifest: Manifest) -> bytes:
    fits = len(shape) == array.ndim and all(want in (None, has) for want, has in zip(shape, array.shape, strict=True))
    assert fits, f"{name} is {array.shape}, not {shape}"
    kind = np.dtype(DTYPES[name])
    if kind.kind == "i":
        assert 0 <= array.min() <= array.max() < manifest.codebook_size, (
            f"{name} has codes beyond {manifest.codebook_size}"
        )
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array.astype(kind))
    assert np.isfinite(stored).all(), f"{name} has values that {kind} cannot hold"
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, stored, allow_pickle=False)
    return buffer.getvalue()


def assemble_shards(
    out: Path, parts: Sequence[VideoPart], known: dict[str, Shard], max_samples: int, max_megabytes: float
) -> list[Shard]:
    """Shards of all `parts` in their order, at most so many samples or megabytes in each (but for a larger part).

    A shard is named by its place and by what is in it, so that one that is there already is left as it is. `known` are
    those that have been described before, by name.
    """
    groups: list[list[VideoPart]] = []
    for part in parts:
        size = sum(each.num_bytes for each in groups[-1]) + part.num_bytes if groups else 0
        count = sum(each.num_samples for each in groups[-1]) + part.num_samples if groups else 0
        if not groups or count > max_samples or size > max_megabytes * 1e6:
            groups.append([])
        groups[-1].append(part)
    names = [_shard_name(number, group) for number, group in enumerate(groups)]
    there = [
        (out / name).is_file() and (out / name).stat().st_size == _shard_bytes(group)
        for name, group in zip(names, groups, strict=True)
    ]
    homes = {} if all(there) else locate_parts(out)
    shards = []
    for name, group, is_there in zip(names, groups, there, strict=True):
        path = out / name
        if not is_there:
            _write_shard(path, group, out, homes)
        shard = known.get(name) if is_there else None
        if shard is None or shard.num_bytes != _shard_bytes(group):
            shard = _describe_shard(path, group)
        for part in group:
            part_path(out, part.key).unlink(missing_ok=True)
        shards.append(shard)
    return shards


def _shard_name(number: int, group: Sequence[VideoPart]) -> str:
    held = hashlib.sha256("".join(part.sha256 for part in group).encode()).hexdigest()
    return f"{number:06d}-{held[:10]}.tar"


def _shard_bytes(group: Sequence[VideoPart]) -> int:
    return sum(part.num_bytes for part in group) + len(TAR_END)


def locate_parts(out: Path) -> dict[str, list[tuple[Path, int]]]:
    """Offsets of parts in existing shards, by the key of their source; of damaged shards, up to the damage."""
    found: dict[str, list[tuple[Path, int]]] = {}
    for path in sorted(out.glob("*.tar")):
        last = ""
        with suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
            for member in tar:
                key = member.name.partition(".")[0].rpartition("_")[0]
                if key != last:
                    found.setdefault(key, []).append((path, member.offset))
                last = key
    return found


def _write_shard(path: Path, group: Sequence[VideoPart], out: Path, homes: dict[str, list[tuple[Path, int]]]) -> None:
    with atomic_write(path) as file:
        for part in group:
            candidates = [(part_path(out, part.key), 0), *homes.get(part.key, [])]
            place = next((each for each in candidates if _contains(*each, part)), None)
            if place is None:
                raise UsageError(
                    f"{str(out)!r}: the samples {part.key!r} have been changed or removed: give a new folder"
                )
            for chunk in _read_chunks(*place, part.num_bytes):
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
