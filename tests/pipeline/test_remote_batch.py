"""Outputs at addresses: videos of the same name, ended runs, queries, and addresses that are refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from v2m.cli.score import main
from v2m.core import remote
from v2m.pipeline import remote_batch

OUT = "memory://scored"


class Handler(SimpleHTTPRequestHandler):
    """Serves get.mp4?NAME from a folder NAME, and other files whatever their query."""

    def translate_path(self, path: str) -> str:
        name, _, query = path.partition("?")
        return super().translate_path(f"/{query}/get.mp4" if name == "/get.mp4" else name)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _empty_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    yield
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def videos(media: Path, tmp_path: Path) -> Path:
    """A folder with one/get.mp4 and another two/get.mp4."""
    for number, name in enumerate(("one", "two")):
        path = tmp_path / "videos" / name / "get.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes((media / "cuts.mp4").read_bytes() + bytes(64 * number))
    return tmp_path / "videos"


@pytest.fixture
def website(videos: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(videos))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def outputs() -> dict[str, bytes]:
    return {file.name: remote.read_bytes(file.address) for file in remote.list_files(OUT)}


def score(*arguments: str | Path) -> int:
    return main([*map(str, arguments), "--out", OUT])


@pytest.mark.parametrize("is_local", [True, False])
def test_video_of_the_same_name_is_not_replaced(
    videos: Path, is_local: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(videos / name / "get.mp4") for name in ("one", "two")]
    if not is_local:
        for path, name in zip(names, ("memory://one/get.mp4", "memory://two/get.mp4"), strict=True):
            remote.write_file(Path(path), name)
        names = ["memory://one/get.mp4", "memory://two/get.mp4"]
    assert score(names[0]) == 0
    made = outputs()
    with monkeypatch.context() as patch:
        patch.delattr(remote_batch, "score_video")  # it is refused before any work
        assert score(names[1]) == 7
    assert "get.v2m.json exists already: give --overwrite" in capsys.readouterr().out
    assert outputs() == made
    assert score(names[0]) == 0
    assert "1 unchanged" in capsys.readouterr().out
    assert score(names[1], "--overwrite") == 0
    assert outputs() != made


def test_local_video_is_told_by_its_bytes_where_its_name_or_time_has_changed(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = videos / "one" / "get.mp4"
    assert score(video) == 0
    os.utime(video, (1, 1))
    assert score(video) == 0
    moved = video.rename(videos / "get.mp4")
    assert score(moved) == 0
    assert capsys.readouterr().out.count("1 unchanged") == 2
    (videos / "two" / "get.mp4").rename(video)  # another version at the name in the sidecar
    assert score(video) == 0
    assert "1 done" in capsys.readouterr().out


def test_addresses_that_differ_only_in_their_query_are_two_videos(
    website: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{website}/get.mp4?{name}" for name in ("one", "two")]
    for status in ("done", "unchanged"):
        assert score(*names) == 0
        assert f"2 {status}" in capsys.readouterr().out
        assert len(outputs()) == 4
    assert score(names[0], "--seed=2") == 0
    made = outputs()
    assert score(names[1], "--seed=2") == 7, "its short name is that of the first now"
    assert outputs() == made


def test_new_signature_is_no_new_video(website: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(f"{website}/one/get.mp4?signature=first") == 0
    assert not any(b"first" in content for content in outputs().values())
    assert score(f"{website}/one/get.mp4?signature=second") == 0
    assert "1 unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("suffix", [".mp4", ".json"])
def test_ended_run_blocks_no_video(
    videos: Path, is_first: bool, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video = videos / "one" / "get.mp4"
    if not is_first:
        assert score(video) == 0
    write = remote.write_file

    def end(source: Path, address: str) -> None:
        if source.suffix == suffix:
            raise KeyboardInterrupt
        write(source, address)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "write_file", end)
        assert score(video, "--seed=2") == 130
    assert score(videos / "two" / "get.mp4") == 7, "it belongs to the first"
    capsys.readouterr()
    for status in ("done", "unchanged"):
        assert score(video, "--seed=2") == 0
        assert f"1 {status}" in capsys.readouterr().out


def test_credentials_in_the_output_are_refused_before_any_work(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(remote_batch, "score_video")
    assert main([str(videos / "one"), "--out", "s3://key:secret/of+aws@bucket/scored"]) == 2
    captured = capsys.readouterr()
    assert "'s3://…' was given with credentials" in captured.err
    assert "secret" not in captured.out + captured.err


def test_keys_with_question_marks_keep_their_names(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("what?.mp4", "what?#2.mp4"):
        remote.write_file(videos / "one" / "get.mp4", f"memory://odd/{name}")
    for status in ("done", "unchanged"):
        assert score("memory://odd") == 0
        assert f"2 {status}" in capsys.readouterr().out
    assert [*outputs()] == ["what?#2.v2m.json", "what?#2.v2m.mp4", "what?.v2m.json", "what?.v2m.mp4"]
