"""Novelty of planted chord changes."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.harmonic_novelty import harmonic_novelty
from v2m.core.types import Audio, Floats

CHORDS = ((48, 60, 64, 67), (45, 57, 60, 64), (53, 57, 60, 65), (43, 59, 62, 67))
TIMES = np.arange(0, 12, 0.02)


def chords(changes: Floats, rate: int) -> Audio:
    times = np.arange(12 * rate) / rate
    number = np.searchsorted(changes, times, side="right") % len(CHORDS)
    pitches = np.array(CHORDS)[number].T
    sound = sum(0.1 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * times) for pitch in pitches)
    return Audio(np.asarray(sound, np.float32)[None], rate)


@pytest.mark.parametrize("rate", [16000, 32000, 44100])
def test_novelty_peaks_where_chords_change_however_often_they_are_struck(rate: int) -> None:
    changes = np.arange(1.0, 11.5, 1.0)
    audio = chords(changes, rate)
    strokes = np.exp(-6 * ((np.arange(len(audio)) / rate) % 0.25)).astype(np.float32)
    novelty = harmonic_novelty(Audio(audio.samples * strokes, rate), TIMES)
    at, between = (np.interp(changes + shift, TIMES, novelty) for shift in (0.0, 0.5))
    assert at.min() > between.max() + 1


def test_silence_and_short_audio_have_no_novelty() -> None:
    np.testing.assert_array_equal(harmonic_novelty(Audio(np.zeros((2, 44100), np.float32), 44100), TIMES[:50]), 0)
    assert np.isfinite(harmonic_novelty(Audio(np.ones((1, 3), np.float32), 8000), TIMES[:2])).all()
