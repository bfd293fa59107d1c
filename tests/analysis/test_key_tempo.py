"""Keys and tempi of synthesized music, and the scores of errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from v2m.analysis.key_tempo import Key, estimate_key, key_score, tempo_error
from v2m.core.types import Audio

RATE = 32000
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 11)}
CADENCE = ((0, 2, 4), (3, 5, 0), (4, 6, 1), (0, 2, 4))  # I IV V I


def cadence(tonic: int, mode: str) -> Audio:
    t = np.arange(RATE) / RATE
    chords = [
        sum(
            np.sin(2 * np.pi * 440 * 2 ** ((60 + tonic + SCALES[mode][degree] - 69) / 12) * harmonic * t) / harmonic**2
            for degree in chord
            for harmonic in (1, 2, 3)
        )
        for chord in CADENCE
    ]
    samples = 0.1 * np.concatenate(chords).astype(np.float32)
    return Audio(samples[None], RATE)


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", [0, 3, 6, 10])
def test_key_of_a_cadence_is_estimated(tonic: int, mode: str) -> None:
    assert estimate_key(cadence(tonic, mode)) == (tonic, mode)


def test_silence_has_no_key() -> None:
    assert estimate_key(Audio(np.zeros((2, RATE), np.float32), RATE)) is None


@pytest.mark.parametrize(
    ("estimate", "reference", "score"),
    [
        ((9, "minor"), (9, "minor"), 1.0),
        ((4, "minor"), (9, "minor"), 0.5),
        ((7, "major"), (0, "major"), 0.5),
        ((9, "minor"), (0, "major"), 0.3),
        ((0, "major"), (9, "minor"), 0.3),
        ((0, "minor"), (0, "major"), 0.2),
        ((3, "minor"), (0, "major"), 0.0),
        ((2, "major"), (0, "major"), 0.0),
    ],
)
def test_key_score_matches_mirex(estimate: Key, reference: Key, score: float) -> None:
    assert key_score(estimate, reference) == score


def test_tempo_error_uses_the_nearest_multiple() -> None:
    assert tempo_error(100, 100) == 0
    assert tempo_error(103, 100) == pytest.approx(0.03)
    assert tempo_error(204, 100) == pytest.approx(0.02)
    assert tempo_error(49, 100) == pytest.approx(0.02)
    assert tempo_error(150, 100) == pytest.approx(0.25)


def test_tone_above_all_pitches_gives_no_warning() -> None:
    whistle = 0.5 * np.sin(2 * np.pi * 10_000 * np.arange(48_000) / 48_000)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        estimate_key(Audio(np.array([whistle], np.float32), 48_000))
    assert said == []
