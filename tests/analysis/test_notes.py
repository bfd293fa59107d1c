"""Notes of synthesized chords with strong overtones."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.key_tempo import estimate_key
from v2m.analysis.notes import LOWEST, note_activations
from v2m.core.types import Audio


def sawtooth(midi: float, seconds: float, rate: int) -> np.ndarray:
    t, hertz = np.arange(round(seconds * rate)) / rate, 440 * 2 ** ((midi - 69) / 12)
    overtones = range(1, min(25, int(rate / 2 / hertz)))
    return sum(np.sin(2 * np.pi * hertz * k * t) / k for k in overtones) * np.ones(len(t))


@pytest.mark.parametrize("rate", [22050, 48000])
@pytest.mark.parametrize("chord", [(48, 52, 55), (43, 58), (50, 65)])
def test_notes_that_sound_are_stronger_than_their_overtones(chord: tuple[int, ...], rate: int) -> None:
    samples = 0.05 * sum(sawtooth(midi, 2.0, rate) for midi in chord)
    notes = note_activations(Audio(np.array([samples], np.float32), rate))[2:-2].mean(axis=0)
    assert set(LOWEST + np.argsort(notes)[-len(chord) :]) == set(chord)


@pytest.mark.parametrize("cents", [-40, 0, 30])
def test_key_is_that_of_the_notes_whatever_their_tuning(cents: int) -> None:
    melody = ((57, 60), (62, 65), (64, 59), (57, 60))
    parts = [
        sawtooth(bass - 12 + cents / 100, 1.0, 32000) + sum(sawtooth(m + cents / 100, 1.0, 32000) for m in (bass, note))
        for bass, note in melody
    ]
    assert estimate_key(Audio(0.05 * np.concatenate(parts)[None].astype(np.float32), 32000)) == (9, "minor")


@pytest.mark.parametrize("tonic", [0, 5])
def test_key_of_a_song_is_not_its_relative(tonic: int) -> None:
    """I iii vi IV: two of four chords are those of the relative minor, and its tonic sounds in three."""
    parts = []
    for chord in ((0, 4, 7), (4, 7, 11), (9, 0, 4), (5, 9, 0)) * 2:
        pitches = (36 + (chord[0] + tonic) % 12, *(54 + (pitch + tonic - 54) % 12 for pitch in chord))
        parts.append(sum(sawtooth(midi, 1.0, 32000) for midi in pitches) * np.exp(-np.arange(32000) / 32000))
    assert estimate_key(Audio(0.05 * np.concatenate(parts)[None].astype(np.float32), 32000)) == (tonic, "major")


def test_silence_and_the_shortest_audio_have_no_notes() -> None:
    assert not note_activations(Audio(np.zeros((2, 48000), np.float32), 48000)).any()
    assert estimate_key(Audio(np.zeros((1, 1), np.float32), 48000)) is None
