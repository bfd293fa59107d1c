"""Ground-truth files: every audio suffix that `v2m prepare` accepts is accepted here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import FFMPEG
from v2m.core.errors import UsageError
from v2m.data.sources import discover_videos
from v2m.evaluation.per_clip import SAMPLE_RATE, ground_truth_audio, ground_truth_files
from v2m.media.audio import AUDIO_SUFFIXES


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_evaluate_and_prepare_accept_the_same_audio_files(suffix: str, tmp_path: Path) -> None:
    audio, video = tmp_path / f"clip{suffix}", tmp_path / "clip.mp4"
    audio.write_bytes(b"x")
    video.write_bytes(b"x")
    assert ground_truth_files(_with_audio_alone(tmp_path / "truth", audio), ["clip"])["clip"].suffix == suffix
    [source] = discover_videos([tmp_path / "clip.mp4"])
    assert source.audio == audio


def test_raw_aac_is_decoded(tmp_path: Path) -> None:
    command = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "sine=440:d=2", "-c:a", "aac", str(tmp_path / "clip.aac")]
    subprocess.run(command, check=True)
    audio = ground_truth_audio(tmp_path / "clip.aac", 1.5)
    assert audio.samples.shape == (2, round(1.5 * SAMPLE_RATE))
    assert audio.samples.any()


def test_missing_and_duplicate_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "a.aac").write_bytes(b"x")
    with pytest.raises(UsageError, match="more than one file for a"):
        ground_truth_files(tmp_path, ["a"])
    with pytest.raises(UsageError, match="lacks the true music of b"):
        ground_truth_files(tmp_path, ["b"])


def _with_audio_alone(folder: Path, audio: Path) -> Path:
    folder.mkdir()
    (folder / audio.name).write_bytes(audio.read_bytes())
    return folder
