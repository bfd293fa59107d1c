"""Alignment of music without known beats: measured, warped to the cuts, and described in the metadata."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.bars import bars
from v2m.analysis.rhythm import track_beats
from v2m.analysis.synchrony import distance_to_nearest
from v2m.core.types import Audio, Cut, Section, Soundtrack, Video, VisualFeatures
from v2m.media.ffmpeg import FFmpegError
from v2m.pipeline import alignment
from v2m.pipeline.alignment import align_to_cuts
from v2m.pipeline.time_warp import MAX_STRETCH

SECONDS = 24.0
BEATS = np.arange(0.35, SECONDS - 0.3, 0.6)
IS_DOWNBEAT = np.arange(len(BEATS)) % 4 == 0
CUTS = tuple(Cut(float(time), strength) for time, strength in [(4.05, 0.5), (7.0, 0.4), (10.6, 1.0), (18.55, 0.6)])


class StubFrameSource:
    """A frame source with visual features and no frames."""

    def __init__(self, cuts: tuple[Cut, ...]) -> None:
        self.cuts = cuts

    def visual_features(self, progress: object = None) -> VisualFeatures:
        times = np.arange(0, SECONDS, 0.1)
        flat = np.zeros(len(times))
        return VisualFeatures(10.0, times, flat, flat, flat, flat, flat, np.zeros(12), 0.0, self.cuts)

    def frames_at(self, times: object, width: int | None = None, convert: object = None) -> np.ndarray:
        raise AssertionError("no frame is looked at")


def video(cuts: tuple[Cut, ...] = CUTS) -> Video:
    stamps = np.arange(0, SECONDS, 0.04)
    return Video(
        Path("x.mp4"), "mp4", "h264", 16, 16, 0, 25.0, SECONDS, stamps, 0.0, (), source=StubFrameSource(cuts)
    )  # fmt: skip


@pytest.fixture(scope="module")
def music() -> Audio:
    return bars(BEATS, IS_DOWNBEAT, SECONDS)


def test_alignment_meets_more_cuts_also_in_the_audio(music: Audio) -> None:
    result = align_to_cuts(Soundtrack(music, sections=(Section("A", 0, 12), Section("B", 12, SECONDS))), video(), 100)
    status = result.metadata["align_to_cuts"]
    assert status["moved"]
    assert status["before"]["hits"] <= 0.5
    assert status["after"]["hits"] >= 0.75
    assert status["after"]["strongest_on_downbeat"]
    assert status["max_stretch"] <= MAX_STRETCH
    assert result.metadata["alignment"] == status["after"]
    assert len(result.metadata["hits"]) == round(status["after"]["hits"] * len(CUTS))
    assert len(result.audio) == len(music)
    measured = track_beats(result.audio, 100)
    assert measured is not None
    assert result.beats is not None
    assert np.median(distance_to_nearest(result.beats, measured.beats)) < 0.02
    assert result.sections[0].start == 0
    assert result.sections[1].end == SECONDS
    assert abs(result.sections[1].start - 12) < 2


def test_stems_are_warped_and_sum_to_the_mix(music: Audio) -> None:
    half = Audio(music.samples * np.float32(0.5), music.sample_rate)
    result = align_to_cuts(Soundtrack(music, stems={"one": half, "two": half}), video(), 100)
    assert result.metadata["align_to_cuts"]["moved"]
    assert list(result.stems) == ["one", "two"]
    summed = result.stems["one"].samples + result.stems["two"].samples
    assert np.abs(summed - result.audio.samples).max() < 1e-6
    without_stems = align_to_cuts(Soundtrack(music), video(), 100)
    assert np.abs(without_stems.audio.samples - summed).max() < 1e-5


def test_soundtracks_with_beats_or_midi_are_unchanged(music: Audio) -> None:
    with_beats = Soundtrack(music, beats=BEATS, downbeats=BEATS[IS_DOWNBEAT])
    assert align_to_cuts(with_beats, video()) is with_beats
    with_midi = Soundtrack(music, midi=b"MThd")
    assert align_to_cuts(with_midi, video()) is with_midi


def test_without_cuts_beats_are_measured_and_audio_is_unchanged(music: Audio) -> None:
    result = align_to_cuts(Soundtrack(music), video(()), 100)
    assert result.audio is music
    assert result.metadata["align_to_cuts"]["reason"] == "no cuts"
    assert result.beats is not None
    assert np.median(distance_to_nearest(BEATS, result.beats)) < 0.03


def test_without_a_beat_nothing_changes() -> None:
    silence = Soundtrack(Audio(np.zeros((2, 32000), np.float32), 32000))
    result = align_to_cuts(silence, video())
    assert result.audio is silence.audio
    assert result.beats is None
    assert result.metadata["align_to_cuts"] == {"moved": False, "reason": "no steady beat was found"}


def test_ffmpeg_without_rubberband_gives_a_warning(
    music: Audio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alignment, "FILTER", "nosuchfilter")
    result = align_to_cuts(Soundtrack(music), video(), 100)
    assert result.audio is music
    assert result.metadata["align_to_cuts"]["reason"] == "ffmpeg cannot"
    assert "not_aligned" in caplog.text
    with pytest.raises(FFmpegError):
        alignment.stretch_audio(music, alignment.TimeMap(np.array([0.0, 1.0]), np.array([0.0, 1.0])), 1.0)


def test_trimmed_ends_are_faded(music: Audio) -> None:
    time_map = alignment.TimeMap(np.array([0.0, SECONDS]), np.array([-0.4, SECONDS + 0.5]))
    steady = replace(music, samples=np.full_like(music.samples, 0.0) + np.float32(0.3) * noise(music))
    faded = alignment._stretch_with_fades(steady, time_map, SECONDS)
    level = np.sqrt(np.square(faded.samples[0].reshape(-1, 320)).mean(axis=1))  # every 10 ms
    assert level[0] < 0.3 * np.median(level)
    assert level[5:15].mean() == pytest.approx(np.median(level), rel=0.3)
    assert level[-1] < 0.1 * np.median(level)


def noise(music: Audio) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(music.samples.shape).astype(np.float32)
