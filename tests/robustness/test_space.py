"""Jobs that cannot fit: one line and exit code 6 before the work, and nothing is left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.conftest import ffmpeg, names
from tests.robustness.full_disk import small_disk
from v2m.cli.score import main
from v2m.core import disk_space
from v2m.core.errors import DISK, OK
from v2m.core.types import Video


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("the picture was analyzed")

    monkeypatch.setattr(Video, "visual_features", fail)


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """30 s: sound of 11.5 MB."""
    path = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=s=64x48:r=2:d=30", "-c:v", "libx264", "-preset", "ultrafast", path)
    return path


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("extra", ["--wav", "--stems", "--candidates=2"])
def test_outputs_that_do_not_fit_are_refused_before_the_work(
    extra: str, long_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "9m") as disk:
        assert main([str(long_clip), "-o", str(disk), "--quiet", extra]) == DISK
        assert names(disk) == []
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"infer.py: {str(disk)!r}: the files to write take ")
    assert "give another --out, or ask for fewer files (--stems, --wav, --candidates)" in line


@pytest.mark.usefixtures("no_work")
def test_temporary_files_that_fit_nowhere_are_refused_before_the_work(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(disk_space, "available_memory", lambda: 20e6)
    with small_disk(tmp_path / "disk", "9m") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        assert main([str(long_clip), "--quiet", "--stems"]) == DISK
    [line] = capsys.readouterr().err.splitlines()
    assert f"{str(disk)!r}: the sound in the work takes 57.6 MB or more, and 9.4 MB are free there" in line
    assert "20.0 MB in memory: set TMPDIR to a folder with more room" in line
    assert names(tmp_path) == ["disk", "long.mp4"]


def test_exact_number_of_stems_is_checked_before_they_are_rendered(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four seconds take 1.5 MB for each array: five are sure at the start, this style's stems take more."""
    monkeypatch.setattr(disk_space, "available_memory", lambda: 8e6)
    monkeypatch.setattr(disk_space, "free_bytes", lambda folder: 0 if folder == Path(tempfile.gettempdir()) else 10**9)
    assert main([str(clip), "--quiet", "--stems", "--tags.genres", "orchestral"]) == DISK
    assert "the sound in the work takes " in capsys.readouterr().err
    assert names(clip.parent) == ["cuts.mp4"]


def test_job_that_just_fits_is_done(clip: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        assert main([str(clip), "-o", str(disk), "--quiet", "--wav"]) == OK


PCM = ("-f", "lavfi", "-i", "anoisesrc=r=48000:d=30", "-ac", "2", "-c:a", "pcm_s16le")


def test_large_video_is_refused_before_the_work_with_what_it_takes(
    tmp_path: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where its own sound is left out, which takes 1.5 MB at most."""
    source = tmp_path / "noise.mkv"
    noise = ("-f", "lavfi", "-i", "nullsrc=s=320x240:r=25:d=4,geq=random(1)*255:128:128")
    ffmpeg(*noise, "-f", "lavfi", "-i", "sine=d=4", "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-c:a", "aac", source)
    for mix in ("replace", "keep"):
        with small_disk(tmp_path / mix, "2m") as disk:
            assert main([str(source), "-o", str(disk), "--quiet", "--mix.original", mix]) == DISK
            assert names(disk) == []
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"infer.py: {str(disk)!r}: the files to write take 1")
        assert "MB or more, and 2.1 MB are free: free some room there" in line


@pytest.mark.parametrize(("suffix", "mix"), [(".mkv", "replace"), (".webm", "keep")])
def test_sound_that_is_left_out_needs_no_room(suffix: str, mix: str, tmp_path: Path) -> None:
    """5.8 MB of the input are sound; WebM holds no PCM."""
    source = tmp_path / "long.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=s=64x48:r=2:d=30", *PCM, "-c:v", "libvpx", "-cpu-used", "8", source)
    with small_disk(tmp_path / "disk", "3m") as disk:
        out = disk / f"out{suffix}"
        assert main([str(source), "-o", str(out), "--quiet", "--mix.original", mix]) == OK
        assert names(disk) == ["out.json", out.name]
