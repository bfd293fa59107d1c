"""Alignment metrics, spectrograms, and their logging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from matplotlib.image import imread

from v2m.analysis.visual_events import features_from_events
from v2m.core.types import Audio
from v2m.training.artifacts import (
    RANGE_DB,
    GeneratedClip,
    alignment_metrics,
    band_levels,
    log_artifacts,
    mean_metrics,
    plot_spectrogram,
)

RATE, TONE_RATE = 16000, 32000


def clicks(seconds: float, times: list[float]) -> Audio:
    wave = np.zeros((1, int(seconds * RATE)), np.float32)
    for time in times:
        wave[0, int(time * RATE) :][:800] += np.exp(-np.arange(800) / 100) * np.sin(np.arange(800))
    return Audio(wave, RATE)


def test_alignment_metrics_on_cuts_are_above_chance_and_off_cuts_below() -> None:
    cut = np.zeros((120, 1))
    cut[[40, 60, 80], 0] = 1.0  # at 2.025, 3.025 and 4.025 s
    seen = features_from_events(cut, ("cut",), 6.0)
    for shift, sign in ((0.0, 1), (0.25, -1)):
        beats = [k / 2 + shift for k in range(12)]
        found = alignment_metrics(clicks(6.0, beats), seen, beats)
        chance = found["hits_above_chance"]
        assert np.sign(chance) == sign
        assert (found["accents"] > 0.8) == (sign > 0)
        assert found["cut_to_beat_ms"] == pytest.approx(25 if sign > 0 else 225)
    assert "hits_above_chance" not in alignment_metrics(
        clicks(6.0, beats), features_from_events(0 * cut, ("cut",), 6.0), beats
    )
    assert alignment_metrics(clicks(6.0, []), seen, [])["lufs"] == -70.0


def test_mean_metrics_skip_clips_without_the_metric() -> None:
    assert mean_metrics([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}


class Broken(CSVLogger):
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        raise RuntimeError("away")


def test_failing_logger_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = CSVLogger(str(tmp_path))
    heard = [GeneratedClip("a", clicks(1.0, [0.5]), {"accents": 1.0}, tmp_path, tmp_path, None)]
    log_artifacts([Broken(str(tmp_path / "b")), other], heard, {"accents": 1.0}, 7)
    assert other.experiment.metrics == [{"audio_samples/accents": 1.0, "step": 7}]
    assert "Broken did not log the audio samples (RuntimeError: away)" in caplog.text


def test_band_levels_show_a_tone_at_its_pitch_and_time() -> None:
    time = np.arange(2 * TONE_RATE) / TONE_RATE
    wave = np.where((time > 0.5) & (time < 1.0), np.sin(2 * np.pi * 1000 * time), 0.0)
    levels, edges = band_levels(Audio(wave[None].astype(np.float32), TONE_RATE))
    column, band = np.unravel_index(levels.argmax(), levels.shape)
    assert edges[band] <= 1050
    assert edges[band + 1] >= 950
    assert 0.5 < 2 * column / len(levels) < 1.0
    assert levels.max() == 0.0
    assert (levels[: len(levels) // 5] == -RANGE_DB).all()  # silence
    assert levels[column, np.searchsorted(edges, 4000)] < -40  # no other tone


def test_spectrogram_is_plotted_for_any_audio(tmp_path: Path) -> None:
    """Of silence, of a moment; with a cut, with a name that fonts lack."""
    seen = features_from_events(np.eye(7)[:1].repeat(4, 0) * [[0], [1], [0], [0]], ("cut", "motion"), 0.2)
    for seconds in (0.02, 2.0):
        wave = np.zeros((2, int(seconds * TONE_RATE)), np.float32)
        plot_spectrogram(tmp_path / "a.png", Audio(wave, TONE_RATE), seen, np.array([0.1]), "日本 $x$")
        assert imread(tmp_path / "a.png").shape[:2] == (460, 1100)
