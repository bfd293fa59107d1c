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

GAIN_STEP_S = 0.001  # seconds between two points of the gain curve
WINDOW_S = 3.0  # seconds over which the music is "around"
THRESHOLD_DB = 6.0  # dB that a peak may stand above the power around it
RATIO = 5.0
ATTACK_DB_PER_S, RELEASE_DB_PER_S = 1500.0, 50.0  # dB per second
BLOCK_STEPS = 1024  # steps treated at once: an hour of sound is not copied


def compress(mix: NDArray[np.float32], stems: Sequence[NDArray[np.float32]], sample_rate: int) -> None:
    """Bends the peaks of `mix` (2, N) in place, and `stems` by the same gain, so that they still sum to it."""
    step = max(1, sample_count(GAIN_STEP_S, sample_rate))
    curve = gain_reduction(*_measure_levels(mix, step))
    points = (np.arange(len(curve)) + 0.5) * step
    for start in range(0, mix.shape[1], BLOCK_STEPS * step):
        place = np.arange(start, min(start + BLOCK_STEPS * step, mix.shape[1]))
        gain = (10.0 ** (-np.interp(place, points, curve) / 20.0)).astype(np.float32)
        for sound in (mix, *stems):
            sound[:, start : start + len(gain)] *= gain


def _measure_levels(mix: NDArray[np.float32], step: int) -> tuple[Floats, Floats]:
    """(Peak, mean square) of each `step` samples of (2, N) over both sides; the last may be shorter."""
    peaks, powers = [], []
    for start in range(0, mix.shape[1], BLOCK_STEPS * step):
        block = np.abs(mix[:, start : start + BLOCK_STEPS * step]).astype(float)
        edges = np.arange(0, block.shape[1], step)
        peaks.append(np.maximum.reduceat(block.max(0), edges))
        powers.append(np.add.reduceat((block**2).mean(0), edges) / np.diff(np.append(edges, block.shape[1])))
    return np.concatenate(peaks), np.concatenate(powers)


def gain_reduction(peak: Floats, power: Floats) -> Floats:
    """dB (G,) to take away where `peak` (G,) stands above the `power` (G,) around it."""
    reach = round(WINDOW_S / GAIN_STEP_S / 2)
    total = np.concatenate([[0.0], np.cumsum(power)])
    first = np.maximum(np.arange(len(power)) - reach, 0)
    last = np.minimum(np.arange(len(power)) + reach, len(power))
    around = (total[last] - total[first]) / (last - first)
    standing = 20.0 * np.log10(peak + 1e-9) - 10.0 * np.log10(np.maximum(around, 1e-12)) - THRESHOLD_DB
    wanted = np.maximum(standing, 0.0) * (1.0 - 1.0 / RATIO)
    time = every(1.0 / GAIN_STEP_S, len(power) * GAIN_STEP_S)[: len(power)]
    falling = np.maximum.accumulate(wanted + RELEASE_DB_PER_S * time) - RELEASE_DB_PER_S * time
    rising = np.maximum.accumulate((wanted - ATTACK_DB_PER_S * time)[::-1])[::-1] + ATTACK_DB_PER_S * time
    return np.maximum(falling, rising)
