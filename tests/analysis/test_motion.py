"""Correlation and lag of onsets that follow the motion, against unrelated ones."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.synchrony import motion_correlation
from v2m.core.types import Audio, VisualFeatures

RATE, SECONDS = 32000, 30


def motion_features(moving: np.ndarray) -> VisualFeatures:
    times = np.arange(len(moving)) / 10
    flat = np.zeros(len(times))
    return VisualFeatures(10.0, times, flat, flat, flat, moving, moving, np.zeros(12), 0.0, ())


def bursts(seed: int = 0) -> np.ndarray:
    """Motion at 10 steps a second: short bursts at random."""
    rng = np.random.default_rng(seed)
    moving = np.zeros(10 * SECONDS)
    moving[rng.choice(np.arange(15, 10 * SECONDS - 20), 25, replace=False)] = rng.uniform(0.3, 1, 25)
    return moving


def onsets_after(moving: np.ndarray, late: float) -> Audio:
    """A noise for each burst, as strong, `late` seconds after it."""
    rng = np.random.default_rng(1)
    samples = 1e-3 * rng.standard_normal(RATE * SECONDS)
    for step in np.flatnonzero(moving):
        at = int((step / 10 + late) * RATE)
        samples[at : at + 1600] += moving[step] * np.exp(-np.arange(1600) / 300) * rng.standard_normal(1600)
    return Audio(samples[None].astype(np.float32), RATE)


@pytest.mark.parametrize("late", [0.0, 0.3, -0.4])
def test_lag_of_onsets_behind_motion_is_found(late: float) -> None:
    found = motion_correlation(onsets_after(bursts(), late), motion_features(bursts()))
    assert found is not None
    assert found.correlation > 0.5
    assert found.correlation > found.chance + 0.3
    assert found.lag == pytest.approx(late, abs=0.11)


def test_onsets_of_another_video_are_near_chance() -> None:
    found = [
        motion_correlation(onsets_after(bursts(seed), 0.0), motion_features(bursts(seed + 50))) for seed in range(6)
    ]
    above = [each.correlation - each.chance for each in found if each is not None]
    assert len(above) == 6
    assert abs(np.mean(above)) < 0.08


def test_still_or_short_video_has_no_motion_correlation() -> None:
    assert motion_correlation(onsets_after(bursts(), 0.0), motion_features(np.zeros(10 * SECONDS))) is None
    assert motion_correlation(Audio(np.zeros((1, RATE), np.float32), RATE), motion_features(bursts())) is None
