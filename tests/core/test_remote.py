"""Files at addresses: what is listed, what the cache keeps, and what is never shown."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from v2m.core import remote
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.remote import RemoteFile


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "files"


def put(address: str, content: bytes) -> RemoteFile:
    with fsspec.open(address, "wb") as file:
        file.write(content)  # pyright: ignore[reportAttributeAccessIssue]
    [listed] = remote.list_files(address)
    return listed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://b/c", True),
        ("memory://x", True),
        ("HTTP://h/x", True),
        ("C:\\x", False),
        ("a/b", False),
        ("a:b//c", False),
    ],
)
def test_address_is_told_from_a_path(name: str, expected: bool) -> None:
    assert remote.is_address(name) == expected


def test_folder_lists_all_below_it_in_order_and_a_file_itself() -> None:
    for name in ("b.mp4", "sub/c.mp4", "a.mp4"):
        put(f"memory://listed/{name}", b"x" * len(name))
    found = remote.list_files("memory://listed/")
    assert [file.address for file in found] == [f"memory://listed/{name}" for name in ("a.mp4", "b.mp4", "sub/c.mp4")]
    assert [file.size for file in found] == [5, 5, 9]
    assert remote.list_files("memory://listed/sub/c.mp4") == [found[2]]
    assert remote.find_file("memory://listed/d.mp4") is None
    with pytest.raises(InvalidInputError, match="nothing is at 'memory://nowhere'") as caught:
        remote.list_files("memory://nowhere")
    assert caught.value.reason == "missing"


def test_copy_has_the_name_and_comes_from_the_cache_until_the_file_changes(cache: Path) -> None:
    first = put("memory://copied/a.mp4", b"first")
    with remote.local_copy(first) as path:
        assert (path.name, path.read_bytes()) == ("a.mp4", b"first")
    second = put("memory://copied/a.mp4", b"other")
    with remote.local_copy(first) as path:
        assert path.read_bytes() == b"first", "the cache knows the version that was listed"
    with remote.local_copy(second) as path:
        assert path.read_bytes() == b"other"
    assert len([*cache.iterdir()]) == 2, "copies in use are removed"


def test_cache_drops_the_least_recently_used_and_no_copy_in_use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [put(f"memory://many/{name}", bytes(400)) for name in "abc"]
    monkeypatch.setenv(remote.SIZE_VARIABLE, "1e-6")  # 1,000 bytes
    with remote.local_copy(files[0]) as in_use:
        with remote.local_copy(files[1]):
            pass
        for number, path in enumerate(sorted(path for path in cache.iterdir() if path.is_file())):
            os.utime(path, (number, number))
        with remote.local_copy(files[2]):
            assert in_use.read_bytes() == bytes(400)
    assert sum(path.stat().st_size for path in cache.iterdir() if path.is_file()) == 800
    monkeypatch.setenv(remote.SIZE_VARIABLE, "much")
    with (
        pytest.raises(UsageError, match="V2M_CACHE_GB='much' must be gigabytes"),
        remote.local_copy(put("memory://d", b"")),
    ):
        pass


def test_file_that_changes_while_it_is_read_is_refused(cache: Path) -> None:
    listed = put("memory://changing/a.mp4", b"12345")
    put("memory://changing/a.mp4", b"1234567")
    with pytest.raises(InvalidInputError, match="7 bytes came instead of 5"), remote.local_copy(listed):
        pass
    assert not [*cache.iterdir()]


def test_written_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"whole")
    remote.write_file(source, target.as_uri())
    assert target.read_bytes() == b"whole"
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with pytest.raises(DependencyError, match="cannot be written"):
        remote.write_file(tmp_path / "gone", (tmp_path / "folder" / "other").as_uri())
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/clips", "memory://a?signature=secret"])
def test_what_may_be_secret_is_not_shown(address: str) -> None:
    with pytest.raises((UsageError, InvalidInputError)) as caught:
        remote.list_files(address)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
