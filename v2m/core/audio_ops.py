"""Gain curves, fades, loops, peaks; C channels, N samples, H hops of `HOP` samples."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from v2m.core import mapped_array
from v2m.core.types import Floats

logger = logging.getLogger(__name__)

HOP = 32


def apply_gain(samples: NDArray[np.float32], gain: Floats, start: int = 0) -> None:
    """Multiply (C, N) in place by `gain` (H,), one value per hop, linear between the middles of the hops.

    `samples[:, 0]` is sample number `start` of the curve.
    """
    for part in mapped_array.chunks(samples.shape[1]):
        chunk = samples[:, part]
        first = start + part.start
        low = max(min(first // HOP, len(gain)) - 1, 0)  # beyond the curve its last value holds
        hops = slice(low, (first + chunk.shape[1]) // HOP + 2)
        middles = np.arange(len(gain))[hops] * HOP + (HOP - 1) / 2
        chunk *= np.interp(np.arange(first, first + chunk.shape[1]), middles, gain[hops]).astype(np.float32)


def raised_cosine(length: int) -> NDArray[np.float32]:
    """(`length`,) a fade-in from 0 to just below 1: sin² of a quarter turn."""
    return np.square(np.sin(np.linspace(0, np.pi / 2, length, endpoint=False))).astype(np.float32)


def fade_edges(samples: NDArray[np.float32], fade_in: int, fade_out: int) -> None:
    """Fade (C, N) in place over the first `fade_in` and the last `fade_out` samples (or all, if fewer)."""
    for view, fade in ((samples, fade_in), (samples[:, ::-1], fade_out)):
        length = min(fade, view.shape[1])
        view[:, :length] *= raised_cosine(length)


def loop_samples(samples: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """Samples `start` to `stop` (…, stop − start) of (…, N) repeated endlessly."""
    return np.take(samples, np.arange(start, stop) % samples.shape[-1], axis=-1)


def peak_excess(samples: NDArray[np.float32]) -> float:
    """Factor by which the peak exceeds ±1, at least 1; logs it where the samples must be attenuated."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 1.0:
        logger.info("the music peaked at %.2f and was made quieter", peak)
    return max(peak, 1.0)
