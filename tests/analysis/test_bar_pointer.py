"""Beats found in planted activations."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.bar_pointer import find_path

RATE = 50


def activations(beats: np.ndarray, opens: np.ndarray, seconds: float, seed: int = 0) -> np.ndarray:
    times = np.arange(int(seconds * RATE)) / RATE
    curves = 0.02 + 0.04 * np.random.default_rng(seed).random((len(times), 2))
    for beat, is_downbeat in zip(beats, opens, strict=True):
        curves[:, int(is_downbeat)] += 0.8 * np.exp(-0.5 * ((times - beat) / 0.02) ** 2)
    return np.minimum(curves, 0.9)


@pytest.mark.parametrize("tempo", [61.0, 87.3, 119.0, 171.0])
@pytest.mark.parametrize("meter", [3, 4])
def test_planted_beats_are_found(tempo: float, meter: int) -> None:
    beats = np.arange(0.61, 19.5, 60 / tempo)
    opens = np.arange(len(beats)) % meter == 1
    path = find_path(activations(beats, opens, 20), RATE)
    assert path.meter == meter
    assert len(path.times) == len(beats)
    assert np.abs(path.times - beats).max() < 0.02
    np.testing.assert_array_equal(path.is_downbeat, opens)


def test_beats_that_slow_down_and_miss_are_followed() -> None:
    beats = 0.4 + np.cumsum(np.linspace(0.45, 0.62, 40))
    curves = activations(beats, np.arange(40) % 4 == 0, beats[-1] + 1)
    for missing in (9, 22, 23):
        frame = round(beats[missing] * RATE)
        curves[frame - 4 : frame + 5] = 0.02
    path = find_path(curves, RATE)
    assert len(path.times) == 40
    assert np.abs(path.times - beats).max() < 0.07


def test_one_bar_of_two_beats_shifts_the_downbeats() -> None:
    beats = np.arange(0.5, 24, 0.5)
    opens = np.isin(np.arange(len(beats)), [*range(0, 17, 4), *range(18, 60, 4)])
    path = find_path(activations(beats, opens, 24.5), RATE)
    np.testing.assert_array_equal(path.is_downbeat, opens)


def test_hint_decides_between_a_tempo_and_its_double() -> None:
    beats = np.arange(0.5, 20, 0.35)
    curves = activations(beats, np.arange(len(beats)) % 8 == 0, 20)
    curves[:, 0] *= 0.6
    tempi = [60 / np.median(np.diff(find_path(curves, RATE, tempo=hint).times)) for hint in (85.7, 171.4)]
    assert tempi == pytest.approx([85.7, 171.4], rel=0.02)


def test_no_beats_without_activations() -> None:
    assert len(find_path(np.full((500, 2), 0.01), RATE).times) == 0
    assert len(find_path(np.full((1, 2), 0.01), RATE).times) == 0


def test_novelty_decides_between_two_phases_of_equal_activation() -> None:
    eighths = np.arange(0.3, 24, 0.3)
    curves = activations(eighths, np.zeros(len(eighths), bool), 24)
    times = np.arange(len(curves)) / RATE
    for first in (0, 1):
        beats = eighths[first::2]
        novelty = np.exp(-0.5 * ((times[:, None] - beats) / 0.1) ** 2).sum(axis=1)
        path = find_path(curves, RATE, 100, novelty - novelty.mean())
        assert np.mean(np.abs(path.times[:, None] - beats).min(axis=1) < 0.05) > 0.9


def test_accents_off_the_beat_do_not_shift_the_beats() -> None:
    beats = np.arange(0.4, 26, 0.55)
    accents = np.where((beats > 10) & (beats < 20), beats + 0.275, beats)
    curves = activations(accents, np.arange(len(beats)) % 4 == 0, 26.5)
    on_beats = activations(beats, np.zeros(len(beats), bool), 26.5, seed=1)
    curves[:, 0] = np.maximum(curves[:, 0], 0.5 * on_beats[:, 0])
    path = find_path(curves, RATE, 60 / 0.55)
    assert np.abs(path.times[:, None] - beats).min(axis=1).max() < 0.07
