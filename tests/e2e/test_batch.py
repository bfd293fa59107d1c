"""Folders: resume, faults that stop nothing, the table and the exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ffmpeg, names
from v2m.cli.score import main
from v2m.core.atomic import claim
from v2m.core.types import Soundtrack
from v2m.generators.sketch import Sketch
from v2m.mixing.mixer import MixConfig
from v2m.pipeline.batch import VideoResult, find_videos, process_videos
from v2m.pipeline.recipes import Recipe


@pytest.fixture
def folder(media: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media / "cuts.mp4", folder / name)
    return folder


class Tidied:
    """A signal to end comes while this is tidied up, where Python loses what its handler raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):  # in which the handler is called
            pass


class Ended(Sketch):
    def __init__(self) -> None:
        super().__init__()
        Tidied()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lost_signal_stops_the_batch_after_the_current_video(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([str(folder), "--generator", "tests.e2e.test_batch.Ended"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out.splitlines()[-1] == "1 done, 1 not done"
    assert (folder / "a.v2m.mp4").exists()


def test_second_run_skips_finished_videos_and_redoes_changed_inputs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scored"
    assert main([str(folder), "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.v2m.json", "a.v2m.mp4", "b.v2m.json", "b.v2m.mp4"]
    made = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([str(folder), "-o", str(out)]) == 0
    assert made == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "2 unchanged" in capsys.readouterr().out
    (folder / "b.mp4").write_bytes((folder / "b.mp4").read_bytes() + bytes(64))
    os.utime(folder / "a.mp4")  # touched, the same bytes
    assert main([str(folder), "-o", str(out)]) == 0
    assert made["a.v2m.mp4"] == (out / "a.v2m.mp4").stat().st_mtime_ns
    assert made["b.v2m.mp4"] != (out / "b.v2m.mp4").stat().st_mtime_ns


def test_changed_settings_redo_outputs_but_keep_foreign_files(folder: Path) -> None:
    assert main([str(folder)]) == 0
    (folder / "a.v2m.mp4").write_bytes(b"edited by hand")
    assert main([str(folder), "--seed", "9"]) == 7
    assert (folder / "a.v2m.mp4").read_bytes() == b"edited by hand"
    assert json.loads((folder / "b.v2m.json").read_text())["seed"] == 9


def test_bad_video_is_listed_in_the_table_and_others_are_scored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "aa.mp4").write_text("not a video")
    (folder / "notes.txt").write_text("not looked at")
    assert main([str(folder)]) == 7
    table = capsys.readouterr().out
    assert table.splitlines()[-1] == "2 done, 1 failed"
    assert any(line.startswith("aa.mp4") and "failed" in line for line in table.splitlines())
    assert (folder / "b.v2m.mp4").exists()
    assert not (folder / "aa.v2m.json").exists()


def test_debug_prints_the_traceback_and_warnings_are_listed_in_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.mp4").write_text("not a video")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.4", folder / "b.gif")
    (folder / "b.mp4").unlink()
    assert main([str(folder), "--debug"]) == 7
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert "InvalidInputError" in said.err
    assert "b.v2m.mp4; warning: pictures_encoded: gif holds no sound" in said.out


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are counted there")
def test_no_decoder_process_outlives_its_video(folder: Path) -> None:
    """Beside those of other tests' videos, which may still be held."""
    before = decoder_processes()
    shutil.copy(folder / "a.mp4", folder / "c.mp4")
    (folder / "b.mp4").write_bytes((folder / "b.mp4").read_bytes()[:4000])  # its index is missing
    kept = [*process_videos(find_videos([folder]), None, Recipe(mix=MixConfig(lufs=None)))]
    assert [row.status for row in kept] == ["done", "failed", "done"]
    assert decoder_processes() <= before


def decoder_processes() -> set[int]:
    """Return the process ids of this process's decoders."""
    found = set[int]()
    for tasks in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            found |= {int(pid) for pid in tasks.read_text().split() if is_decoder(pid)}
    return found


def is_decoder(pid: str) -> bool:
    try:
        return b"v2m.media.decoder_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def test_videos_that_differ_in_their_suffix_are_both_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.mp4").unlink()
    assert main([str(folder)]) == 0
    ffmpeg("-i", folder / "a.mp4", "-c", "copy", folder / "A.MOV")
    made = ["a.v2m.json", "a.v2m.mp4"]
    for status in ("1 done, 1 unchanged", "2 unchanged"):
        assert main([str(folder)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == status
        assert names(folder) == sorted(["A.MOV", "A.MOV.v2m.MOV", "A.MOV.v2m.json", "a.mp4", *made])
    for name in made:
        (folder / name).unlink()
    assert main([str(folder)]) == 0
    assert {"a.mp4.v2m.mp4", "A.MOV.v2m.MOV"} <= {*names(folder)}
    assert main([str(folder / "A.MOV"), "--inpaint", "1:2", "--overwrite"]) == 0, "one by itself keeps its name"
    assert json.loads((folder / "A.MOV.v2m.json").read_text())["music"]["inpainted"] == [1.0, 2.0]


def test_videos_of_two_folders_with_one_name_are_both_scored(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    command = [str(folder / "a.mp4"), str(other / "a.mp4"), "-o", str(tmp_path / "scored")]
    assert main(command) == 0
    made = names(tmp_path / "scored")
    sidecars = [json.loads(path.read_text()) for path in (tmp_path / "scored").glob("*.json")]
    assert {record["input"]["file"] for record in sidecars} == {str(folder / "a.mp4"), str(other / "a.mp4")}
    assert main(command) == 0
    assert names(tmp_path / "scored") == made


class Held(Sketch):
    """Waits before it writes music."""

    started, released = threading.Event(), threading.Event()

    def generate(self, *args: object, **options: object) -> Soundtrack:
        self.started.set()
        assert self.released.wait(60)
        return super().generate(*args, **options)  # type: ignore[arg-type]


def test_two_runs_on_a_folder_share_its_videos(folder: Path) -> None:
    first: list[VideoResult] = []
    videos = find_videos([folder])
    run = threading.Thread(target=lambda: first.extend(process_videos(videos, None, Recipe(generator=Held()))))
    run.start()
    assert Held.started.wait(60)
    second = []
    for row in process_videos(videos, None, Recipe()):
        second.append(row)
        Held.released.set()
    run.join()
    assert [(row.path.name, row.status) for row in second] == [("b.mp4", "done"), ("a.mp4", "unchanged")]
    assert [(row.path.name, row.status) for row in first] == [("a.mp4", "done"), ("b.mp4", "unchanged")]
    assert names(folder) == ["a.mp4", "a.v2m.json", "a.v2m.mp4", "b.mp4", "b.v2m.json", "b.v2m.mp4"]


def test_output_of_another_run_is_refused_before_the_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claim(folder / "a.v2m"):
        assert main([str(folder / "a.mp4")]) == 2
        assert main([str(folder / "a.mp4"), "-o", str(folder / "a.v2m.mov")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["infer.py: another run is writing 'a.v2m': let it end, or give another --out"] * 2
    assert names(folder) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("out", ["a.mp4", "new.mkv", "a.mp4/new"])
def test_several_videos_require_an_output_folder(folder: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    assert main([str(folder), "-o", str(folder / out)]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4", "b.mp4"]


def test_find_videos_returns_only_videos(folder: Path) -> None:
    for name in (".hidden.mp4", "a.v2m.mp4", "x.txt", "UPPER.MOV"):
        (folder / name).write_text("")
    (folder / "sub.mp4").mkdir()
    assert [path.name for path in find_videos([folder, folder / "a.mp4"])] == ["UPPER.MOV", "a.mp4", "b.mp4"]
