"""How onsets follow the motion of the picture.

R steps of 100 ms, L lags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2m.analysis.onsets import HOPS_PER_SECOND, onset_strength
from v2m.core.timing import seconds_of
from v2m.core.types import Audio, Floats, VisualFeatures

STEPS_PER_SECOND = 10
MAX_LAG_S = 1.0  # seconds
MIN_STEPS = 4 * STEPS_PER_SECOND
NUM_SHIFTS = 100


@dataclass(frozen=True)
class MotionCorrelation:
    """correlation: Pearson's, −1 to 1, of onset strength and motion in steps of 100 ms at the lag within ±1 s where it
    is highest; `lag`: that lag in seconds, above 0 where the music comes after the picture. chance: the same highest
    correlation with the motion moved round in a circle, the mean of many moves: a maximum is above 0 by itself.
    """

    correlation: float
    lag: float
    chance: float


def motion_correlation(audio: Audio, features: VisualFeatures) -> MotionCorrelation | None:
    """None where the music is shorter than 4 s, or sound or motion is flat."""
    onsets = onset_strength(audio)
    hops = HOPS_PER_SECOND // STEPS_PER_SECOND
    count = min(len(onsets) // hops, int(features.times[-1] * STEPS_PER_SECOND))
    if count < MIN_STEPS:
        return None
    heard = onsets[: count * hops].reshape(count, hops).mean(axis=1)
    seen = np.interp((np.arange(count) + 0.5) / STEPS_PER_SECOND, features.times, features.motion)
    if heard.std() < 1e-6 or seen.std() < 1e-6:
        return None
    reach = round(MAX_LAG_S * STEPS_PER_SECOND)
    at_lag = _lagged_correlations(heard, seen, reach)
    best = int(at_lag.argmax())
    moves = np.random.default_rng(0).integers(reach + 1, count - reach, NUM_SHIFTS)
    chance = float(np.mean([_lagged_correlations(heard, np.roll(seen, move), reach).max() for move in moves]))
    return MotionCorrelation(float(at_lag[best]), seconds_of(best - reach, STEPS_PER_SECOND), chance)


def _lagged_correlations(onsets: Floats, motion: Floats, max_lag: int) -> Floats:
    """(L,) for lags of −`reach` to `reach` steps of the music behind the picture, over the steps that both have."""
    found = []
    for lag in range(-max_lag, max_lag + 1):
        late, early = (onsets[lag:], motion[: len(motion) - lag]) if lag >= 0 else (onsets[:lag], motion[-lag:])
        spread = late.std() * early.std()
        found.append(0.0 if spread < 1e-12 else float(((late - late.mean()) * (early - early.mean())).mean() / spread))
    return np.array(found)
