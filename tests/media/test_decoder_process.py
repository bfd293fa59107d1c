"""The decoder process: its limits, its end and its silence."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.robustness.media_makers import MediaMaker, read_number
from v2m.media import decoder_process, video
from v2m.media.decoder_process import DecoderProcess, DecoderProcessError

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
EXAMPLE = Path(__file__).parents[2] / "data" / "examples" / "bunny_wakes.mp4"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> MediaMaker:
    return MediaMaker(tmp_path_factory.mktemp("child"))


@pytest.fixture(scope="module")
def hanging(maker: MediaMaker) -> Path:
    """An edit list that hides more frames than decord can skip: its seeking never ends."""
    maker.ffmpeg("numbers:320x240:30:300 X -g 1000 O", maker.folder / "long.mp4")
    maker.ffmpeg("-ss 6 -i long.mp4 -c copy O", maker.folder / "cut.mp4")
    return maker.folder / "cut.mp4"


def child_pids(parent: int) -> list[int]:
    """Process ids, zombies included, of the children of `parent`."""
    result = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            result.append(int(path.parent.name))
    return result


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def start_script(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start Python in a process group of its own and wait for its `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; from v2m.media import video\n{code}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(video.__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def hang_request(path: Path | str) -> dict[str, object]:
    """A request to seek in the file without the check that would have refused it."""
    return {"task": "seek", "path": str(path), "codec": "h264", "indices": [299], "size": [320, 240], "count": 300}


HANG = (
    "from v2m.media.decoder_process import DecoderProcess\n"
    "child = DecoderProcess(4_000_000_000)\n"
    "list(child.request({'task': 'probe', 'path': sys.argv[1], 'limits': vars(video.DEFAULT_LIMITS)}, 20))\n"
    "print('ready', flush=True)\n"
    "try: list(child.request(eval(sys.argv[2]), 60))\n"
    "except KeyboardInterrupt: sys.exit(130)"
)


def test_hanging_decoder_is_killed_at_the_limit(hanging: Path) -> None:
    child = DecoderProcess(4_000_000_000)
    before, begin = child_pids(os.getpid()), time.monotonic()
    with pytest.raises(DecoderProcessError, match="was not done after 2 s"):
        list(child.request(hang_request(hanging), 2.0))
    assert time.monotonic() - begin >= 2
    assert set(child_pids(os.getpid())) <= set(before)  # of which a video's that nobody holds may have ended


def test_only_time_spent_waiting_counts(hanging: Path) -> None:
    child = DecoderProcess(4_000_000_000)
    limits = {"duration": 60, "pixels": 1e6, "frames": 1e3, "total_pixels": 1e9}
    probe = {"task": "probe", "path": str(hanging), "limits": limits}
    assert len(list(child.request(dict(probe), 20.0))) == 1  # which starts the process
    replies = child.request(probe, 2.0)
    next(replies)
    time.sleep(2.5)
    assert list(replies) == []


def test_failed_decoder_is_replaced(hanging: Path) -> None:
    """decord counts the frames that the edit list hides as well."""
    clip = video.open(hanging, decoder="decord")
    assert [read_number(image) for image in clip.frames([1.0, 3.9])] == [210, 297]
    assert video.current_warnings(clip) == (
        "decoder: decord found 300 frames instead of 120; read in sequence instead",
    )


def test_crashed_decoder_is_reported_and_replaced(hanging: Path) -> None:
    child = DecoderProcess(4_000_000_000)
    before = set(child_pids(os.getpid()))
    replies = child.request(hang_request(hanging), 20.0)
    killer = threading.Timer(1.0, lambda: os.kill((set(child_pids(os.getpid())) - before).pop(), signal.SIGSEGV))
    killer.start()
    with pytest.raises(DecoderProcessError, match=r"ended the decoder \(status -11\)"):
        next(replies)
    killer.join()
    assert set(child_pids(os.getpid())) == before
    limits = {"duration": 60, "pixels": 1e6, "frames": 1e3, "total_pixels": 1e9}
    assert len(list(child.request({"task": "probe", "path": str(hanging), "limits": limits}, 20.0))) == 1


def test_process_ends_with_the_video(hanging: Path) -> None:
    before = set(child_pids(os.getpid()))
    clip = video.open(hanging)
    assert len(set(child_pids(os.getpid())) - before) == 1
    del clip
    gc.collect()
    assert set(child_pids(os.getpid())) <= before


def test_abandoned_scan_ends_the_process_and_the_next_one_works(maker: MediaMaker) -> None:
    path = maker.folder / "wide.mp4"
    maker.ffmpeg("V X O", path)
    clip = video.open(path)
    assert isinstance(clip.source, video.FileFrameSource)
    scan = iter(clip.source.scan(320, 30))
    next(scan)
    del scan
    assert read_number(clip.frames([2.0])[0]) == 60


def test_ctrl_c_stops_both_processes_silently(hanging: Path) -> None:
    process = start_script(HANG, hanging, repr(hang_request(hanging)))
    [child] = child_pids(process.pid)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "")
    wait_until_gone(child)


def test_hanging_decoder_dies_with_its_parent(hanging: Path) -> None:
    process = start_script(HANG, hanging, repr(hang_request(hanging)))
    [child] = child_pids(process.pid)
    time.sleep(0.5)
    process.kill()
    process.communicate()
    wait_until_gone(child)
    assert not Path(f"/proc/{child}").exists()


def test_decoder_memory_is_limited(hanging: Path) -> None:
    before = child_pids(os.getpid())
    clip = video.open(hanging, video.Limits(memory=1_500_000_000))
    [child] = set(child_pids(os.getpid())) - set(before)
    [line] = [line for line in Path(f"/proc/{child}/limits").read_text().splitlines() if "address space" in line]
    assert line.split()[3:5] == ["1500000000", "1500000000"]
    assert clip.warnings == ()


def test_modules_in_the_current_folder_are_not_imported(
    hanging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('taken from the current folder')")
    monkeypatch.chdir(tmp_path)
    assert video.open(hanging).duration == pytest.approx(4)


def test_decoder_killed_from_outside_raises_memory_error(maker: MediaMaker) -> None:
    """The kernel kills processes when memory runs out; the exit code is 5."""
    path = maker.folder / "long.mp4"
    maker.ffmpeg("numbers:320x240:30:900 X O", path)
    before = set(child_pids(os.getpid()))
    clip = video.open(path)
    [child] = set(child_pids(os.getpid())) - before
    assert isinstance(clip.source, video.FileFrameSource)
    scan = iter(clip.source.scan(320, 30))
    next(scan)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(MemoryError, match="the system ended the decoder"):
        list(scan)


def test_a_process_that_was_started_ahead_is_taken_once() -> None:
    """By the first video of its memory limit; the next one gets a process of its own."""
    decoder_process.start_ahead([str(EXAMPLE)])
    (started,) = (process._process for process in decoder_process._idle)
    other = video.open(EXAMPLE, video.Limits(memory=3_000_000_000))
    first, second = video.open(EXAMPLE), video.open(EXAMPLE)
    used = [opened.source._process._process for opened in (other, first, second)]  # type: ignore[attr-defined]
    assert used[1] is started
    assert len(set(used)) == 3
    assert first.frames([0.0]).shape == second.frames([0.0]).shape


def test_no_process_is_started_ahead_without_a_file(tmp_path: Path) -> None:
    before = child_pids(os.getpid())
    decoder_process.start_ahead(["--help", str(tmp_path / "gone.mp4")])
    assert child_pids(os.getpid()) == before
