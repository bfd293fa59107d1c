"""Beats that are heard are those that were played."""

from __future__ import annotations

import numpy as np

from v2m.metrics.beats import heard_beats
from v2m.types import Audio

RATE = 16000


def test_clicks_are_beats() -> None:
    """Every 0.6 s, of which the tracker may miss the first and the last."""
    wave = np.zeros((1, 12 * RATE), np.float32)
    for start in range(0, wave.shape[1] - 800, int(0.6 * RATE)):
        wave[0, start : start + 800] = np.exp(-np.arange(800) / 100) * np.sin(np.arange(800))
    found = heard_beats(Audio(wave, RATE))
    assert found is not None
    assert len(found) >= 17
    assert np.abs((found + 0.3) % 0.6 - 0.3).max() < 0.03


def test_silence_has_none() -> None:
    found = heard_beats(Audio(np.zeros((1, 2 * RATE), np.float32), RATE))
    assert found is not None
    assert len(found) == 0
