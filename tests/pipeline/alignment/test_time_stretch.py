"""What is stretched arrives when the course says, at the pitch that it had."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from v2m.core.timing import TimeMap
from v2m.core.types import Audio
from v2m.pipeline.alignment.time_stretch import stretch_audio

RATE, SECONDS = 32000, 20.0
PLANTED = np.arange(0.75, SECONDS, 0.5)


def clicks(channels: int = 2) -> Audio:
    samples = np.zeros((channels, int(SECONDS * RATE)), np.float32)
    for time in PLANTED:
        at = int(time * RATE)
        samples[:, at : at + 200] += 0.8 * np.exp(-np.arange(200) / 30) * (-1.0) ** np.arange(200)
    return Audio(samples, RATE)


def course(seed: int, begin: float = 0.0) -> TimeMap:
    knots = np.arange(0.0, SECONDS + 0.1, 1.25)
    rates = np.random.default_rng(seed).uniform(0.96, 1.04, len(knots) - 1)
    return TimeMap(knots, begin + np.concatenate([[0.0], np.cumsum(np.diff(knots) * rates)]))


def heard(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Seconds at which something begins."""
    loud = np.flatnonzero(np.abs(samples) > 0.15)
    return loud[np.diff(loud, prepend=-RATE) > 0.2 * RATE] / RATE


@pytest.mark.parametrize(("seed", "begin"), [(0, 0.0), (1, -0.4), (2, 0.3), (3, -0.6)])
def test_impulses_arrive_within_10_ms_of_where_the_course_puts_them(seed: int, begin: float) -> None:
    plan = course(seed, begin)
    result = stretch_audio(clicks(), plan, SECONDS)
    assert result.samples.shape == (2, int(SECONDS * RATE))
    expected = plan.forward(PLANTED)
    expected = expected[(expected > 0) & (expected < SECONDS - 0.01)]
    found = heard(result.samples[0])
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 0.010
    assert not result.samples[:, : int(max(begin, 0.0) * RATE)].any()


def test_the_pitch_stays() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(int(SECONDS * RATE)) / RATE).astype(np.float32)
    plan = TimeMap(np.array([0.0, 10.0, 20.0]), np.array([0.0, 9.6, 20.0]))
    result = stretch_audio(Audio(np.stack([tone, 0.5 * tone]), RATE), plan, SECONDS)
    for begin, side in ((2, 0), (12, 1)):
        piece = result.samples[side, begin * RATE : (begin + 4) * RATE]
        strongest = np.abs(np.fft.rfft(piece * np.hanning(len(piece)))).argmax() / 4
        assert strongest == pytest.approx(440, abs=0.5)
    level = np.sqrt(np.square(result.samples[:, RATE : 19 * RATE]).mean(axis=1))
    assert level == pytest.approx([0.5**0.5, 0.5**1.5], rel=0.05)


def test_stems_stay_in_step_whatever_sounds_in_them() -> None:
    tone = 0.05 * np.sin(2 * np.pi * 220 * np.arange(int(SECONDS * RATE)) / RATE)
    alone = stretch_audio(clicks(), course(4), SECONDS)
    among = stretch_audio(Audio(clicks().samples + tone.astype(np.float32), RATE), course(4), SECONDS)
    first, second = heard(alone.samples[0]), heard(among.samples[0])
    assert len(first) == len(second)
    assert np.abs(first - second).max() < 0.010


def test_the_sides_of_a_stereo_sound_stay_together() -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, int(SECONDS * RATE)).astype(np.float32)
    result = stretch_audio(Audio(np.stack([noise, 0.5 * noise]), RATE), course(5), SECONDS)
    assert np.corrcoef(result.samples[0], result.samples[1]).min() > 0.99


def test_one_rate_throughout_needs_no_commands_and_a_copy_that_is_too_short_ends_in_silence() -> None:
    result = stretch_audio(clicks(1), TimeMap(np.array([0.0, 1.0]), np.array([0.0, 0.97])), SECONDS)
    assert np.abs(heard(result.samples[0]) - PLANTED * 0.97).max() < 0.010
    assert not result.samples[:, int(19.6 * RATE) :].any()


def test_the_same_is_made_each_time_and_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stretch_audio(clicks(), course(6), SECONDS)
    odd = tmp_path / "a b'[c];,:\\é"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert (stretch_audio(clicks(), course(6), SECONDS).samples == first.samples).all()
    assert not list(odd.iterdir())
