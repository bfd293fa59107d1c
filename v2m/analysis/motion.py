"""Correlation of onsets with the motion of the picture.

R steps of 100 ms, L lags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2m.analysis.onsets import HOPS_PER_SECOND, onset_strength
from v2m.core.timing import seconds_of
from v2m.core.types import Audio, Floats, VisualFeatures

STEPS_PER_SECOND = 10
MAX_LAG_S = 1.0
MIN_STEPS = 4 * STEPS_PER_SECOND
NUM_SHIFTS = 100


@dataclass(frozen=True)
class MotionCorrelation:
    """The highest correlation of onset strength and motion at lags within ±1 s, in steps of 100 ms.

    Args:
        correlation: Pearson's, −1 to 1.
        lag: Its lag in seconds, above 0 where the music comes after the picture.
        chance: The same maximum with the motion shifted in a circle, the mean of many shifts: it exceeds 0 by itself.
    """

    correlation: float
    lag: float
    chance: float


def motion_correlation(audio: Audio, features: VisualFeatures) -> MotionCorrelation | None:
    """Correlate; None where the music is shorter than 4 s, or onsets or motion are flat."""
    strength = onset_strength(audio)
    hops = HOPS_PER_SECOND // STEPS_PER_SECOND
    count = min(len(strength) // hops, int(features.times[-1] * STEPS_PER_SECOND))
    if count < MIN_STEPS:
        return None
    onsets = strength[: count * hops].reshape(count, hops).mean(axis=1)
    motion = np.interp((np.arange(count) + 0.5) / STEPS_PER_SECOND, features.times, features.motion)
    if onsets.std() < 1e-6 or motion.std() < 1e-6:
        return None
    max_lag = round(MAX_LAG_S * STEPS_PER_SECOND)
    correlations = _lagged_correlations(onsets, motion, max_lag)
    best = int(correlations.argmax())
    shifts = np.random.default_rng(0).integers(max_lag + 1, count - max_lag, NUM_SHIFTS)
    chance = float(np.mean([_lagged_correlations(onsets, np.roll(motion, shift), max_lag).max() for shift in shifts]))
    return MotionCorrelation(float(correlations[best]), seconds_of(best - max_lag, STEPS_PER_SECOND), chance)


def _lagged_correlations(onsets: Floats, motion: Floats, max_lag: int) -> Floats:
    """(L,) correlations for lags of −`max_lag` to `max_lag` steps of the music, over the steps that both have."""
    correlations = []
    for lag in range(-max_lag, max_lag + 1):
        late, early = (onsets[lag:], motion[: len(motion) - lag]) if lag >= 0 else (onsets[:lag], motion[-lag:])
        spread = late.std() * early.std()
        covariance = ((late - late.mean()) * (early - early.mean())).mean()
        correlations.append(0.0 if spread < 1e-12 else float(covariance / spread))
    return np.array(correlations)
