"""Atomic outputs under failures of ffmpeg and the disk and under interruption; inputs are never changed."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FFMPEG, ffmpeg, names
from tests.media.audio_checks import drums, tone
from v2m.core.atomic import check_output
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Video
from v2m.media import video as videos
from v2m.media.ffmpeg import FFmpegError, run_ffmpeg
from v2m.mixing.mixer import mix


@pytest.fixture
def clip(tmp_path: Path) -> Video:
    folder = tmp_path / "in"
    folder.mkdir()
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1", "-f", "lavfi", "-i", "sine=d=1")
    ffmpeg(*picture, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", folder / "clip.mp4")
    return videos.open(folder / "clip.mp4")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "clip.mp4"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_ffmpeg_stub(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """Install a stub of ffmpeg that runs `does` with $out, its last argument without `file:`.

    Descriptions of files and trials before the work go to the true ffmpeg.
    """
    program = folder / "ffmpeg-stub"
    version = 'if [ "$1" = -version ]; then echo "ffmpeg version stub"; exit 0; fi'
    others = f'if [[ " $* " != *" -map "* || " $* " == *" -t "* ]]; then exec {FFMPEG} "$@"; fi'
    program.write_text(f'#!/bin/bash\n{version}\n{others}\nout="${{@: -1}}"; out="${{out#file:}}"\n{does}\n')
    program.chmod(0o755)
    monkeypatch.setenv("V2M_FFMPEG", str(program))


@pytest.mark.parametrize("link", ["same", "symbolic", "hard", "dotted"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_output_cannot_be_the_input(link: str, overwrite: bool, clip: Video, out: Path) -> None:
    before = digest(clip.path)
    aim = {"same": clip.path, "dotted": clip.path.parent / ".." / "in" / "clip.mp4"}.get(link, out)
    if link == "symbolic":
        out.symlink_to(clip.path)
    elif link == "hard":
        out.hardlink_to(clip.path)
    with pytest.raises(UsageError, match="is the input itself"):
        mix(clip, tone(1), aim, overwrite=overwrite)
    assert digest(clip.path) == before


def test_existing_output_is_replaced_only_on_request(clip: Video, out: Path) -> None:
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already: give `overwrite=True`"):
        mix(clip, tone(1), out)
    assert out.read_text() == "mine"
    mix(clip, tone(1), out, overwrite=True)
    assert out.stat().st_size > 1000
    assert names(out.parent) == ["clip.mp4"]


def test_link_to_another_file_is_replaced_not_followed(clip: Video, out: Path) -> None:
    other = out.parent / "precious.mp4"
    other.write_text("precious")
    out.symlink_to(other)
    with pytest.raises(UsageError, match="exists"):
        check_output(clip.path, out, overwrite=False)
    mix(clip, tone(1), out, overwrite=True)
    assert other.read_text() == "precious"
    assert not out.is_symlink()


def test_impossible_outputs_are_refused(clip: Video, out: Path) -> None:
    for path, said in (
        (out.parent, "is a folder"),
        (out.parent / "nowhere" / "clip.mp4", "is not a folder"),
        (out.parent / f"{'x' * 252}.mp4", "would have 256 bytes, more than 255: give a shorter `out`"),
    ):
        with pytest.raises(UsageError, match=said):
            check_output(clip.path, path, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_refused(clip: Video, out: Path) -> None:
    out.parent.chmod(0o500)
    with pytest.raises(PermissionError):
        check_output(clip.path, out, overwrite=False)


@pytest.mark.parametrize(
    ("does", "error", "said"),
    [
        ("echo kaputt >&2; exit 1", UsageError, r"as \.mp4 .*kaputt.* give a \.mkv output"),
        ("kill -9 $$", MemoryError, "the system ended ffmpeg"),
        ("kill -XFSZ $$", OSError, "File too large"),
        ("kill -TERM $$", DependencyError, "SIGTERM ended ffmpeg"),
        ("cat > /dev/null; exit 0", RuntimeError, "cannot be read back"),
        ("cat > /dev/null; head -c 3000 CLIP > $out; exit 0", RuntimeError, "cannot be read back"),
        ("cat > /dev/null; cp CLIP $out; exit 0", None, ""),
        ("FFMPEG -v error -y -i CLIP -c copy -t 0.5 -f mp4 $out; exit 0", RuntimeError, "other video packets"),
        ("FFMPEG -v error -y -i CLIP -c copy -an -f mp4 $out; exit 0", RuntimeError, "0 audio tracks"),
        ("FFMPEG -v error -y -i CLIP -c:v copy -af atrim=0:0.4 -f mp4 $out; exit 0", RuntimeError, "sounds from"),
        ("cat > /dev/null; echo 'x: No space left on device' >&2; exit 228", OSError, "No space left"),
    ],
)
def test_failing_ffmpeg_leaves_no_partial_file(  # noqa: PLR0917
    does: str,
    error: type[Exception] | None,
    said: str,
    clip: Video,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stub in ffmpeg's place fails, dies, writes nothing, half a file, another video or no sound, and exits 0."""
    write_ffmpeg_stub(tmp_path, monkeypatch, does.replace("CLIP", f"'{clip.path}'").replace("FFMPEG", FFMPEG))
    before = digest(clip.path)
    if error is None:
        assert mix(clip, tone(1), out).ffmpeg == "stub"
    else:
        with pytest.raises(error, match=said):
            mix(clip, tone(1), out)
        assert names(out.parent) == []
    assert digest(clip.path) == before


def test_hanging_ffmpeg_is_stopped_with_all_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ffmpeg_stub(tmp_path, monkeypatch, f"sleep 600 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(FFmpegError, match="did not finish within 1 s and"):
        run_ffmpeg(["-map", "x"], iter([bytes(1 << 20)] * 4), timeout=1)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 60
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)


def runs(number: int) -> bool:
    """Return whether a process runs; one that is dead, but that nobody has collected here, does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_interruption_leaves_no_file(stop: type[BaseException], clip: Video, out: Path) -> None:
    def interrupt(fraction: float) -> None:
        raise stop

    with pytest.raises(stop):
        mix(clip, tone(1), out, progress=interrupt)
    assert names(out.parent) == []


def test_progress_rises_to_one(clip: Video, out: Path) -> None:
    told: list[float] = []

    def tell(fraction: float) -> None:
        told.append(fraction)

    mix(clip, tone(1), out, progress=tell)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_missing_ffmpeg_is_reported(clip: Video, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2M_FFMPEG", str(tmp_path / "none"))
    with pytest.raises(DependencyError, match="V2M_FFMPEG is"):
        mix(clip, tone(1), out)
    write_ffmpeg_stub(tmp_path, monkeypatch, "")
    (tmp_path / "ffmpeg-stub").write_text("#!/nowhere\n")
    with pytest.raises(DependencyError, match="does not run"):
        mix(clip, tone(1), out)
    assert names(out.parent) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 200 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "v2m", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_disk_that_fills_up_leaves_no_file(suffix: str, small_disk: Path, tmp_path: Path) -> None:
    """Also where the clip itself would fit, and the file with the music does not."""
    codec = ["-c:v", "libvpx-vp9", "-deadline", "realtime"] if suffix == ".webm" else ["-c:v", "libx264"]
    ffmpeg("-f", "lavfi", "-i", "color=s=64x48:r=5:d=30", *codec, tmp_path / f"clip{suffix}")
    clip = videos.open(tmp_path / f"clip{suffix}")
    assert clip.path.stat().st_size < 150_000
    with pytest.raises(OSError, match="No space left") as raised:
        mix(clip, drums(30), small_disk / f"out{suffix}")
    assert raised.value.errno == errno.ENOSPC
    assert names(small_disk) == []
