"""Samples out of tars: the right bytes, and no damage that passes for the end."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.tiny import shards as made
from v2m.core.errors import DependencyError, UsageError
from v2m.data.schema import CODES, FRAMES, MANIFEST, META, TEXT, Manifest
from v2m.data.shards import CorruptSampleError, ShardReader, decode


def change_manifest(folder: Path, **values: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_samples_are_read_by_index_as_written(tmp_path: Path) -> None:
    shards = ShardReader(made.write(tmp_path, (3, 1, 2)), verify_hashes=True)
    assert len(shards) == 6
    for number in (5, 0, 3, 2, 4, 1):
        assert shards.read_members(number) == made.members(number)


def test_webdataset_reader_gives_the_same_samples(tmp_path: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    shards = ShardReader(made.write(tmp_path, (3,)))
    with (tmp_path / "00000.tar").open("rb") as file:
        opened: Any = file
        files = [{"fname": name, "data": data} for name, data in tar_file_iterator(opened)]
    for number, sample in enumerate(group_by_keys(iter(files))):
        assert {name: sample[name] for name in shards.read_members(number)} == shards.read_members(number)


@pytest.mark.parametrize("fault", ["truncated", "empty", "missing", "longer"])
def test_shard_of_another_size_is_refused_on_opening(tmp_path: Path, fault: str) -> None:
    path = made.write(tmp_path, (4, 4)) / "00001.tar"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:9000], "empty": b"", "missing": b"", "longer": whole + b"x"}[fault])
    if fault == "missing":
        path.unlink()
    with pytest.raises(DependencyError, match=r"00001.tar (has \d+ bytes instead of|is missing)"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("block", [bytes(4096), b"\xa5" * 4096])
def test_garbage_inside_a_shard_is_reported(tmp_path: Path, block: bytes) -> None:
    path = made.write(tmp_path, (6,)) / "00000.tar"
    whole = bytearray(path.read_bytes())
    header = whole.index(b"sample0003.")
    whole[header : header + len(block)] = block
    path.write_bytes(whole)
    with pytest.raises(DependencyError, match=r"damaged: [3-5] samples instead of 6.*on_corrupt: skip"):
        ShardReader(tmp_path).read_members(0)
    skipping = ShardReader(tmp_path, on_corrupt="skip")
    assert skipping.read_members(2) == made.members(2)
    with pytest.raises(CorruptSampleError, match="lacks"):
        skipping.read_members(5)
    with pytest.raises(DependencyError, match="SHA-256"):
        ShardReader(tmp_path, verify_hashes=True)


def test_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "in", (1,))
    shard = json.loads((folder / MANIFEST).read_text())["shards"][0]
    for name in ("../out.tar", "pipe:touch ran", "/etc/passwd", "file:///etc/passwd"):
        change_manifest(folder, shards=[{**shard, "file": name}])
        with pytest.raises(DependencyError, match="outside itself"):
            ShardReader(folder)


def test_compressed_tar_is_not_unpacked(tmp_path: Path) -> None:
    """Which could hold far more than its size: even where the manifest says that it is as it should be."""
    path = made.write(tmp_path, (2,)) / "00000.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))
    shard = json.loads((tmp_path / MANIFEST).read_text())["shards"][0]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_manifest(tmp_path, shards=[{**shard, "num_bytes": path.stat().st_size, "sha256": digest}])
    with pytest.raises(DependencyError, match="damaged: 0 samples instead of 2"):
        ShardReader(tmp_path, verify_hashes=True).read_members(0)


def test_missing_shards_and_missing_samples_have_distinct_errors(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"holds no dataset.*v2m prepare"):
        ShardReader(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*none.*v2m prepare"):
        ShardReader(tmp_path / "none")
    made.write(tmp_path, (1,))
    change_manifest(tmp_path, shards=[])
    with pytest.raises(DependencyError, match="holds no samples"):
        ShardReader(tmp_path)
    change_manifest(tmp_path, version=2)
    with pytest.raises(DependencyError, match="version 2"):
        ShardReader(tmp_path)


def test_samples_of_a_missing_shard_are_left_out_where_asked(tmp_path: Path) -> None:
    made.write(tmp_path, (2, 2))
    (tmp_path / "00000.tar").unlink()
    reader = ShardReader(tmp_path, on_corrupt="skip")
    with pytest.raises(CorruptSampleError, match=r"00000\.tar lacks sample 1"):
        reader.read_members(1)
    assert reader.read_members(2)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


def test_broken_members_raise_corrupt_sample_error() -> None:
    whole = made.members(1)
    arrays = made.arrays(decode(whole, made.KEPT).meta, 1)
    nan = arrays[FRAMES].copy()
    nan[1, 0, 0] = np.nan
    for name, payload, message in (
        (META, b"{", "description"),
        (META, b'{"key": "a"}', "description"),
        (CODES, b"", "no array"),
        (CODES, whole[CODES][:60], "no array"),
        (CODES, pickle.dumps(Bomb()), "no array"),
        (CODES, made.saved(np.array([Bomb()], dtype=object)), "no array"),
        (CODES, made.saved(arrays[CODES][:, :-20]), "shape"),
        (CODES, made.saved(arrays[CODES] - 64), "codes outside"),
        (CODES, made.saved(arrays[CODES] + 64), "codes outside"),
        (FRAMES, made.saved(nan), "no numbers"),
    ):
        with pytest.raises(CorruptSampleError, match=message):
            decode({**whole, name: payload}, made.KEPT)


def test_samples_of_another_schema_raise_dependency_error() -> None:
    whole = made.members(1)
    arrays = made.arrays(decode(whole, made.KEPT).meta, 1)
    for name, array in (
        (CODES, arrays[CODES][:3]),
        (CODES, arrays[CODES].astype("int32")),
        (FRAMES, arrays[FRAMES][:, :, :8]),
        (TEXT, arrays[TEXT].astype("float32")),
    ):
        with pytest.raises(DependencyError, match="do not belong together"):
            decode({**whole, name: made.saved(array)}, made.KEPT)


def test_manifest_round_trip(tmp_path: Path) -> None:
    made.write(tmp_path, (1, 2))
    manifest = Manifest.read(tmp_path)
    assert (manifest.num_samples, manifest.duration, manifest.event_channels) == (3, 24.0, made.KEPT.event_channels)
