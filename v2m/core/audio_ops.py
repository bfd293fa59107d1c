"""Operations on samples that several packages share: gain curves, loops, peaks.

C channels, N samples, H hops of `HOP` samples.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Floats

HOP = 32
PIECE = HOP << 15  # samples worked on at a time


logger = logging.getLogger(__name__)


def loop_samples(samples: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """Samples `start` to `stop` (…, stop − start) of (…, N) repeated endlessly."""
    return np.take(samples, np.arange(start, stop) % samples.shape[-1], axis=-1)


def peak_excess(samples: NDArray[np.float32]) -> float:
    """Factor by which the peak exceeds ±1, at least 1; logs it where the samples must be attenuated."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 1.0:
        logger.info("the music peaked at %.2f and was made quieter", peak)
    return max(peak, 1.0)


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
