"""A look-ahead true-peak limiter: from an envelope of peaks to a gain curve.

Our own, because no library limits true peaks offline on numpy arrays: the usual ones work on sample peaks in real
time, or under the GPL.

C channels, N samples, H hops of `audio_ops.HOP` samples.
"""

from __future__ import annotations

import numpy as np

from v2m.analysis.loudness import amplitude_to_db
from v2m.core.types import Floats

REACH_HOPS = 3  # one for the interpolation between hops, two for the moving average of five


def slew_limit(level: Floats, rise: float, fall: float) -> Floats:
    """Return the highest curve below `level` that rises by at most `rise` and falls by at most `fall` a step."""
    steps = np.arange(len(level), dtype=np.float64)
    rising = np.minimum.accumulate(level - rise * steps) + rise * steps
    return (np.minimum.accumulate(rising[::-1] - fall * steps) + fall * steps)[::-1]


def limiter_gain(peaks: Floats, ceiling: float, attack: float = 1.5, release: float = 0.04) -> Floats:
    """Return the gain (H,), at most 1, that keeps peaks (H,) at or below `ceiling` (dB); attacks are linear in dB.

    `attack` and `release` are dB a hop; as the whole envelope is known, the attack happens before the peak. At 48 kHz
    the defaults are 2.25 dB/ms and 60 dB/s.
    """
    needed = np.minimum(ceiling - amplitude_to_db(peaks), 0.0)
    padded = np.pad(needed, REACH_HOPS, constant_values=0.0)
    lowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH_HOPS + 1).min(axis=1)
    gain = 10.0 ** (slew_limit(lowest, release, attack) / 20.0)
    return np.convolve(np.pad(gain, 2, mode="edge"), np.full(5, 0.2), "valid")
