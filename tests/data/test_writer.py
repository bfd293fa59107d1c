"""Tars that are the same whenever the samples are, and that anybody reads."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from tests.fixtures.tiny.shards import KEPT
from v2m.core.errors import UsageError
from v2m.data import writer
from v2m.data.schema import CODES, DTYPES, EVENTS, FRAMES, LONG_TERM, MEMBERS, META, TEXT, Manifest, Meta

ROOT = Path(__file__).parents[2]


def sample(key: str, number: int = 0, seconds: float = 3.0) -> writer.EncodedSample:
    meta = Meta(f"{key}_{number:04d}", f"{key}.mp4", 0.0, seconds, seconds, {"moods": ["calm"]}, "calm music")
    random = np.random.default_rng(number)
    arrays = {
        name: random.random([2 if size is None else size for size in shape])
        for name, shape in KEPT.shapes(meta).items()
    }
    return meta, arrays | {CODES: random.integers(0, 64, arrays[CODES].shape)}


def part(out: Path, key: str, count: int = 1) -> writer.VideoPart:
    return writer.write_part(out, key, (sample(key, number) for number in range(count)), KEPT)


def contents(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.tar"))}


def test_shard_has_the_given_members(tmp_path: Path) -> None:
    parts = [part(tmp_path, "a", 2), part(tmp_path, "b")]
    [shard] = writer.assemble_shards(tmp_path, parts, {}, 100, 100)
    path = tmp_path / shard.file
    assert (shard.num_samples, shard.duration, shard.num_bytes) == (3, 9.0, path.stat().st_size)
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        samples = list(group_by_keys(tar_file_expander([{"url": path.name, "stream": file}])))  # type: ignore[arg-type]
    assert [item["__key__"] for item in samples] == ["a_0000", "a_0001", "b_0000"]
    for item, (meta, arrays) in zip(samples, (sample("a"), sample("a", 1), sample("b")), strict=True):
        assert json.loads(item[META])["key"] == meta.key
        for name in MEMBERS[1:]:
            stored = np.load(io.BytesIO(item[name]), allow_pickle=False)
            assert stored.dtype == DTYPES[name]
            np.testing.assert_array_equal(stored, arrays[name].astype(DTYPES[name]))
    assert not list((tmp_path / writer.PARTS_DIR).iterdir())
    with tarfile.open(path) as tar:
        assert {(member.mtime, member.mode, member.uid, member.uname) for member in tar} == {(0, 0o644, 0, "")}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_webdataset_pipeline_decodes_the_given_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened, grouped and decoded by what other people's training has; in secure mode it opens no files."""
    from webdataset import utils
    from webdataset.compat import WebDataset

    monkeypatch.setattr(utils, "enforce_security", False)
    shards = writer.assemble_shards(tmp_path, [part(tmp_path, "a", 2), part(tmp_path, "b")], {}, 2, 100)
    urls = [str(tmp_path / shard.file) for shard in shards]
    pipeline: Any = WebDataset(urls, shardshuffle=False).decode()
    samples = list(pipeline)
    assert [item["__key__"] for item in samples] == ["a_0000", "a_0001", "b_0000"]
    for item, (meta, arrays) in zip(samples, (sample("a"), sample("a", 1), sample("b")), strict=True):
        assert Meta(**item[META]) == meta
        for name in MEMBERS[1:]:
            np.testing.assert_array_equal(item[name], arrays[name].astype(DTYPES[name]))
    gc.collect()


@pytest.mark.parametrize("module", ["writer", "streaming"])
def test_webdataset_is_imported_in_secure_mode(module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WDS_SECURE", raising=False)
    piped = f"import v2m.data.{module}; from webdataset.gopen import gopen; gopen('pipe:touch {tmp_path / 'ran'}')"
    done = subprocess.run([sys.executable, "-c", piped], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "cannot open pipe URLs" in done.stderr
    assert not (tmp_path / "ran").exists()
    files = [
        path.name for path in (ROOT / "v2m").rglob("*.py") if re.search(r"(import|from) webdataset", path.read_text())
    ]
    assert sorted(files) == ["streaming.py", "writer.py"]


def test_shards_are_bounded_by_samples_and_megabytes(tmp_path: Path) -> None:
    parts = [part(tmp_path, key, 2) for key in "abcde"]
    assert [item.num_samples for item in writer.assemble_shards(tmp_path, parts, {}, 5, 100)] == [4, 4, 2]
    assert [item.num_samples for item in writer.assemble_shards(tmp_path, parts, {}, 1, 100)] == [2] * 5
    most = 2.5 * parts[0].num_bytes / 1e6
    assert [item.num_samples for item in writer.assemble_shards(tmp_path, parts, {}, 100, most)] == [4, 4, 2]


def test_parts_move_between_shards_when_earlier_parts_are_added(tmp_path: Path) -> None:
    """As if all had been written at once; what is there already is left as it is."""
    whole, updated = tmp_path / "whole", tmp_path / "updated"
    parts = {key: part(whole, key) for key in "abcd"}
    writer.assemble_shards(whole, [parts[key] for key in "abcd"], {}, 2, 100)
    for key in "bcd":
        part(updated, key)
    first = writer.assemble_shards(updated, [parts[key] for key in "bcd"], {}, 2, 100)
    before = {item.file: (updated / item.file).stat().st_mtime_ns for item in first}
    known = {item.file: item for item in first}
    assert writer.assemble_shards(updated, [parts[key] for key in "bcd"], known, 2, 100) == first
    assert {name: (updated / name).stat().st_mtime_ns for name in before} == before
    part(updated, "a")
    shards = writer.assemble_shards(updated, [parts[key] for key in "abcd"], known, 2, 100)
    assert {item.file: item.sha256 for item in shards} == contents(whole)
    assert contents(whole).items() <= contents(updated).items()


def test_damaged_shard_or_missing_part_is_refused(tmp_path: Path) -> None:
    parts = [part(tmp_path, "a"), part(tmp_path, "b")]
    [shard] = writer.assemble_shards(tmp_path, parts, {}, 100, 100)
    content = bytearray((tmp_path / shard.file).read_bytes())
    content[2000] ^= 1
    (tmp_path / shard.file).write_bytes(content)
    with pytest.raises(UsageError, match="'a' have been changed or removed"):
        writer.assemble_shards(tmp_path, parts, {}, 1, 100)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        (CODES, lambda x: x[:, :-1]),
        (CODES, lambda x: x + 64),
        (FRAMES, lambda x: x * np.inf),
        (LONG_TERM, lambda x: x + 1e5),
        (EVENTS, lambda x: x[:, :1]),
        (TEXT, lambda x: x[0]),
    ],
)
def test_samples_that_differ_from_the_manifest_are_not_written(tmp_path: Path, name: str, spoil) -> None:
    meta, arrays = sample("a")
    with pytest.raises(AssertionError):
        writer.write_part(tmp_path, "a", [(meta, arrays | {name: spoil(arrays[name])})], KEPT)
    assert not list((tmp_path / writer.PARTS_DIR).iterdir())


def test_remove_partial_deletes_temporary_files_only(tmp_path: Path) -> None:
    part(tmp_path, "a")
    for folder in (tmp_path, tmp_path / writer.PARTS_DIR):
        (folder / ".x.v2m-0123abcd.part").write_bytes(b"")
    writer.remove_partial(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [writer.PARTS_DIR, "a.part"]


def test_manifest_round_trip(tmp_path: Path) -> None:
    parts = [part(tmp_path, "a")]
    manifest = replace(KEPT, shards=tuple(writer.assemble_shards(tmp_path, parts, {}, 9, 9)), dropped={"silent": 2})
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
