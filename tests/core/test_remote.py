"""Files at addresses: what is listed, what the cache keeps, and what is never shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """The address of a folder `www` on a server that sends no ETag and refuses all signatures."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403) if "Signature" in self.path else super().do_GET()

        def do_HEAD(self) -> None:
            self.send_error(403) if "Signature" in self.path else super().do_HEAD()

        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "www").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "www"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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


def test_file_is_not_written_half_nor_under_the_temporary_name_of_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"whole")
    used = []

    def lose_connection(_: object, temporary: str, target: str) -> None:
        used.append(temporary)
        raise ConnectionError

    monkeypatch.setattr(fsspec.get_filesystem_class("file"), "mv", lose_connection)
    for _ in range(2):
        with pytest.raises(DependencyError, match="cannot be written"):
            remote.write_file(source, target.as_uri())
    assert not [*target.parent.iterdir()]
    assert len({*used}) == 2


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("s3://b/clips/clip #1.mp4", "clip #1.mp4"),
        ("s3://b/clips/what?.mp4", "what?.mp4"),
        ("http://h/get.mp4?of=a/b#c", "get.mp4"),
        ("HTTPS://h/get.mp4#c?d/e", "get.mp4"),
        ("s3://b", "b"),
    ],
)
def test_only_web_addresses_have_queries_and_fragments(address: str, name: str) -> None:
    assert RemoteFile(address, 0, "").name == name
    assert remote.printable_address(address) == address[: address.index(name) + len(name)]


def test_key_with_a_hash_and_a_question_mark_is_copied_under_its_name(cache: Path) -> None:
    put("memory://odd/clip #1?.mp4", b"x")
    [listed] = remote.list_files("memory://odd")
    with remote.local_copy(listed) as path:
        assert (path.name, path.read_bytes()) == ("clip #1?.mp4", b"x")


def test_object_that_stands_for_a_folder_is_not_listed() -> None:
    folder = "/marked/folder/"
    memory = fsspec.filesystem("memory")
    memory.store[folder] = memory.store[put("memory://elsewhere", b"").address.removeprefix("memory:/")]
    try:
        with pytest.raises(InvalidInputError, match="nothing is at 'memory://marked/'"):
            remote.list_files("memory://marked/")
        put("memory://marked/a.mp4", b"x")
        assert [file.name for file in remote.list_files("memory://marked/")] == ["a.mp4"]
    finally:
        del memory.store[folder]


def test_change_on_a_server_without_etags_is_noticed(website: str, cache: Path, tmp_path: Path) -> None:
    path, contents = tmp_path / "www" / "a.mp4", []
    for number, content in enumerate((b"first", b"other")):
        path.write_bytes(content)
        os.utime(path, (number, number))
        [listed] = remote.list_files(f"{website}/a.mp4")
        with remote.local_copy(listed) as copy:
            contents.append(copy.read_bytes())
    assert contents == [b"first", b"other"]
    assert len([*cache.iterdir()]) == 2


@pytest.mark.parametrize("end", ["", "z" * 300, "'(secret)', \"secret\""])
def test_signature_of_a_refused_request_is_not_shown(website: str, tmp_path: Path, end: str) -> None:
    query = f"?X-Amz-Credential=SECRET%2Fus-east-1%2Fs3&X-Amz-Signature=SECRET{end}"
    file = RemoteFile(f"{website}/a.mp4{query}", 1, "")
    with pytest.raises(InvalidInputError, match=r"a\.mp4' cannot be read .*403") as caught:
        remote.download(file, tmp_path / "a.mp4")
    assert "secret" not in str(caught.value).lower()


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/clips",
        "s3://key:wJalr/secret+K7@bucket/clips",
        "s3://key:/secret@bucket/clips",
        "sftp://user:12secret@host/clips",
        "zip://a/b.zip::s3://key:secret@bucket/c.zip",
        "http://localhost:1/a?signature=secret",
    ],
)
def test_what_may_be_secret_is_not_shown(address: str) -> None:
    with pytest.raises((UsageError, InvalidInputError)) as caught:
        remote.list_files(address)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    [
        "http://h:80/a@b:c.mp4",
        "http://h:80?of=a@b",
        "http://h?of=http://a:b@c",
        "http://[fe80::1]/a",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/a/b",
        "s3://b/a:c@d",
    ],
)
def test_ports_and_names_of_access_points_are_no_credentials(address: str) -> None:
    assert not remote.CREDENTIALS.match(address)
