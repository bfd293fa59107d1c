"""A tone is seen where it sounds: at its pitch, at its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from v2m.analysis.visual_events import features_from_events
from v2m.core.types import Audio
from v2m.training.spectrogram import RANGE_DB, band_levels, plot_spectrogram

RATE = 32000


def test_a_tone_lies_in_its_band_while_it_lasts() -> None:
    time = np.arange(2 * RATE) / RATE
    wave = np.where((time > 0.5) & (time < 1.0), np.sin(2 * np.pi * 1000 * time), 0.0)
    levels, edges = band_levels(Audio(wave[None].astype(np.float32), RATE))
    column, band = np.unravel_index(levels.argmax(), levels.shape)
    assert edges[band] <= 1050
    assert edges[band + 1] >= 950
    assert 0.5 < 2 * column / len(levels) < 1.0
    assert levels.max() == 0.0
    assert (levels[: len(levels) // 5] == -RANGE_DB).all()  # silence
    assert levels[column, np.searchsorted(edges, 4000)] < -40  # no other tone


def test_a_picture_is_drawn_of_anything(tmp_path: Path) -> None:
    """Of silence, of a moment; with a cut, with a name that fonts lack."""
    seen = features_from_events(np.eye(7)[:1].repeat(4, 0) * [[0], [1], [0], [0]], ("cut", "motion"), 0.2)
    for seconds in (0.02, 2.0):
        wave = np.zeros((2, int(seconds * RATE)), np.float32)
        plot_spectrogram(tmp_path / "a.png", Audio(wave, RATE), seen, np.array([0.1]), "日本 $x$")
        assert imread(tmp_path / "a.png").shape[:2] == (460, 1100)
