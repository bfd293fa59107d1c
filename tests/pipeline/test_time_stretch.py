"""Stretched audio follows the time map at its original pitch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from v2m.core.timing import TimeMap
from v2m.core.types import Audio
from v2m.pipeline.alignment import stretch_audio

RATE, SECONDS = 32000, 20.0
PLANTED = np.arange(0.75, SECONDS, 0.5)


def clicks(channels: int = 2) -> Audio:
    samples = np.zeros((channels, int(SECONDS * RATE)), np.float32)
    for time in PLANTED:
        at = int(time * RATE)
        samples[:, at : at + 200] += 0.8 * np.exp(-np.arange(200) / 30) * (-1.0) ** np.arange(200)
    return Audio(samples, RATE)


def make_time_map(seed: int, start: float = 0.0) -> TimeMap:
    knots = np.arange(0.0, SECONDS + 0.1, 1.25)
    rates = np.random.default_rng(seed).uniform(0.96, 1.04, len(knots) - 1)
    return TimeMap(knots, start + np.concatenate([[0.0], np.cumsum(np.diff(knots) * rates)]))


def onset_times(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the seconds at which the signal rises."""
    loud = np.flatnonzero(np.abs(samples) > 0.15)
    return loud[np.diff(loud, prepend=-RATE) > 0.2 * RATE] / RATE


@pytest.mark.parametrize(("seed", "start"), [(0, 0.0), (1, -0.4), (2, 0.3), (3, -0.6)])
def test_impulses_arrive_within_10_ms_of_the_time_map(seed: int, start: float) -> None:
    time_map = make_time_map(seed, start)
    result = stretch_audio(clicks(), time_map, SECONDS)
    assert result.samples.shape == (2, int(SECONDS * RATE))
    expected = time_map.forward(PLANTED)
    expected = expected[(expected > 0) & (expected < SECONDS - 0.01)]
    onsets = onset_times(result.samples[0])
    assert len(onsets) == len(expected)
    assert np.abs(onsets - expected).max() < 0.010
    assert not result.samples[:, : int(max(start, 0.0) * RATE)].any()


def test_pitch_and_level_are_unchanged() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(int(SECONDS * RATE)) / RATE).astype(np.float32)
    time_map = TimeMap(np.array([0.0, 10.0, 20.0]), np.array([0.0, 9.6, 20.0]))
    result = stretch_audio(Audio(np.stack([tone, 0.5 * tone]), RATE), time_map, SECONDS)
    for start, side in ((2, 0), (12, 1)):
        piece = result.samples[side, start * RATE : (start + 4) * RATE]
        strongest = np.abs(np.fft.rfft(piece * np.hanning(len(piece)))).argmax() / 4
        assert strongest == pytest.approx(440, abs=0.5)
    level = np.sqrt(np.square(result.samples[:, RATE : 19 * RATE]).mean(axis=1))
    assert level == pytest.approx([0.5**0.5, 0.5**1.5], rel=0.05)


def test_stems_stay_synchronous_whatever_their_content() -> None:
    tone = 0.05 * np.sin(2 * np.pi * 220 * np.arange(int(SECONDS * RATE)) / RATE)
    alone = stretch_audio(clicks(), make_time_map(4), SECONDS)
    among = stretch_audio(Audio(clicks().samples + tone.astype(np.float32), RATE), make_time_map(4), SECONDS)
    first, second = onset_times(alone.samples[0]), onset_times(among.samples[0])
    assert len(first) == len(second)
    assert np.abs(first - second).max() < 0.010


def test_stereo_channels_stay_coherent() -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, int(SECONDS * RATE)).astype(np.float32)
    result = stretch_audio(Audio(np.stack([noise, 0.5 * noise]), RATE), make_time_map(5), SECONDS)
    assert np.corrcoef(result.samples[0], result.samples[1]).min() > 0.99


def test_constant_rate_on_mono_audio_is_padded_with_silence() -> None:
    result = stretch_audio(clicks(1), TimeMap(np.array([0.0, 1.0]), np.array([0.0, 0.97])), SECONDS)
    assert np.abs(onset_times(result.samples[0]) - PLANTED * 0.97).max() < 0.010
    assert not result.samples[:, int(19.6 * RATE) :].any()


def test_stretching_is_deterministic_and_works_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stretch_audio(clicks(), make_time_map(6), SECONDS)
    odd = tmp_path / "a b'[c];,:\\é"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert (stretch_audio(clicks(), make_time_map(6), SECONDS).samples == first.samples).all()
    assert not list(odd.iterdir())
