"""The bus compressor: strokes that stand far above the music around them are bent; everything slower passes.

The threshold lies a fixed distance above the power of the seconds around, so that quiet and loud passages keep their
levels against each other. The gain rises and falls in straight lines of dB, ahead of a stroke and after it, which are
running maxima: a compressor without a loop over samples. N samples, G points of the gain curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every, sample_count
from v2m.core.types import Floats

STEP = 0.001  # seconds between two points of the gain curve
AROUND = 3.0  # seconds over which the music is "around"
STANDING = 6.0  # dB that a peak may stand above the power around it
RATIO = 5.0
ATTACK, RELEASE = 1500.0, 50.0  # dB per second
BLOCK = 1024  # steps treated at once: an hour of sound is not copied


def compress(mix: NDArray[np.float32], stems: Sequence[NDArray[np.float32]], sample_rate: int) -> None:
    """Bends the peaks of `mix` (2, N) in place, and `stems` by the same gain, so that they still sum to it."""
    step = max(1, sample_count(STEP, sample_rate))
    curve = reduction(*_levels(mix, step))
    points = (np.arange(len(curve)) + 0.5) * step
    for start in range(0, mix.shape[1], BLOCK * step):
        place = np.arange(start, min(start + BLOCK * step, mix.shape[1]))
        gain = (10.0 ** (-np.interp(place, points, curve) / 20.0)).astype(np.float32)
        for sound in (mix, *stems):
            sound[:, start : start + len(gain)] *= gain


def _levels(mix: NDArray[np.float32], step: int) -> tuple[Floats, Floats]:
    """(Peak, mean square) of each `step` samples of (2, N) over both sides; the last may be shorter."""
    peaks, powers = [], []
    for start in range(0, mix.shape[1], BLOCK * step):
        block = np.abs(mix[:, start : start + BLOCK * step]).astype(float)
        edges = np.arange(0, block.shape[1], step)
        peaks.append(np.maximum.reduceat(block.max(0), edges))
        powers.append(np.add.reduceat((block**2).mean(0), edges) / np.diff(np.append(edges, block.shape[1])))
    return np.concatenate(peaks), np.concatenate(powers)


def reduction(peak: Floats, power: Floats) -> Floats:
    """dB (G,) to take away where `peak` (G,) stands above the `power` (G,) around it."""
    reach = round(AROUND / STEP / 2)
    total = np.concatenate([[0.0], np.cumsum(power)])
    first = np.maximum(np.arange(len(power)) - reach, 0)
    last = np.minimum(np.arange(len(power)) + reach, len(power))
    around = (total[last] - total[first]) / (last - first)
    standing = 20.0 * np.log10(peak + 1e-9) - 10.0 * np.log10(np.maximum(around, 1e-12)) - STANDING
    wanted = np.maximum(standing, 0.0) * (1.0 - 1.0 / RATIO)
    time = every(1.0 / STEP, len(power) * STEP)[: len(power)]
    falling = np.maximum.accumulate(wanted + RELEASE * time) - RELEASE * time
    rising = np.maximum.accumulate((wanted - ATTACK * time)[::-1])[::-1] + ATTACK * time
    return np.maximum(falling, rising)
