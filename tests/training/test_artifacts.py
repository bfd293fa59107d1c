"""Figures say how music meets cuts, and each logger gets what it can take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger

from v2m.analysis.visual_events import features_from_events
from v2m.core.types import Audio
from v2m.training.artifacts import GeneratedClip, alignment_metrics, log_artifacts, mean_metrics

RATE = 16000


def clicks(seconds: float, times: list[float]) -> Audio:
    wave = np.zeros((1, int(seconds * RATE)), np.float32)
    for time in times:
        wave[0, int(time * RATE) :][:800] += np.exp(-np.arange(800) / 100) * np.sin(np.arange(800))
    return Audio(wave, RATE)


def test_music_on_the_cuts_is_above_chance_and_beside_them_below() -> None:
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


def test_a_mean_is_over_the_clips_that_have_the_figure() -> None:
    assert mean_metrics([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}


class Broken(CSVLogger):
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        raise RuntimeError("away")


def test_a_logger_that_fails_leaves_the_others_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = CSVLogger(str(tmp_path))
    heard = [GeneratedClip("a", clicks(1.0, [0.5]), {"accents": 1.0}, tmp_path, tmp_path, None)]
    log_artifacts([Broken(str(tmp_path / "b")), other], heard, {"accents": 1.0}, 7)
    assert other.experiment.metrics == [{"audio_samples/accents": 1.0, "step": 7}]
    assert "Broken did not take what was heard (RuntimeError: away)" in caplog.text
