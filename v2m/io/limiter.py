"""A look-ahead true-peak limiter: from an envelope of peaks to a gain curve, and the curve onto samples.

C channels, N samples, H hops of `HOP` samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2m.metrics.loudness import decibels
from v2m.types import Floats

HOP = 32
REACH = 3  # hops: one for the interpolation between hops, two for the moving average of five
PIECE = HOP << 15  # samples worked on at a time


def ramped(level: Floats, rise: float, fall: float) -> Floats:
    """The highest curve nowhere above `level` that rises by at most `rise` a step and falls by at most `fall`."""
    steps = np.arange(len(level), dtype=np.float64)
    rising = np.minimum.accumulate(level - rise * steps) + rise * steps
    return (np.minimum.accumulate(rising[::-1] - fall * steps) + fall * steps)[::-1]


def limiting(peaks: Floats, ceiling: float, attack: float = 1.5, release: float = 0.04) -> Floats:
    """Gain (H,) that keeps peaks (H,) at or below `ceiling` (dB); at most 1, straight in dB on the way there and back.

    `attack` and `release` are dB a hop; as the whole envelope is known, the attack happens before the peak. At 48 kHz
    the defaults are 2.25 dB/ms and 60 dB/s.
    """
    needed = np.minimum(ceiling - decibels(peaks), 0.0)
    padded = np.pad(needed, REACH, constant_values=0.0)
    lowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1).min(axis=1)
    gain = 10.0 ** (ramped(lowest, release, attack) / 20.0)
    return np.convolve(np.pad(gain, 2, mode="edge"), np.full(5, 0.2), "valid")


def apply_gain(samples: NDArray[np.float32], gain: Floats, start: int = 0) -> None:
    """Multiplies (C, N) in place by `gain` (H,), one value per hop, straight lines between the middles of the hops.

    `samples[:, 0]` is sample number `start` of the curve.
    """
    for low in range(0, samples.shape[1], PIECE):
        piece = samples[:, low : low + PIECE]
        first = start + low
        hops = slice(max(first // HOP - 1, 0), (first + piece.shape[1]) // HOP + 2)
        middles = np.arange(len(gain))[hops] * HOP + (HOP - 1) / 2
        piece *= np.interp(np.arange(first, first + piece.shape[1]), middles, gain[hops]).astype(np.float32)
