"""Bus compressor with look-ahead: attenuates peaks that stand out from their surroundings.

The threshold lies a fixed distance above the power of the surrounding seconds, so that quiet and loud sections keep
their relative levels. Attack and release are straight lines in dB, computed as running maxima: no loop over samples.
The values are hand-tuned so that mastering to −14 LUFS leaves its limiter next to nothing (tests/sketch/test_mix.py).
N samples, G points of the gain curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every, sample_count
from v2m.core.types import Floats

GAIN_STEP_S = 0.001  # between two points of the gain curve
WINDOW_S = 3.0  # over which the surrounding power is averaged
THRESHOLD_DB = 6.0  # of a peak above the surrounding power
RATIO = 5.0
ATTACK_DB_PER_S, RELEASE_DB_PER_S = 1500.0, 50.0
BLOCK_STEPS = 1024  # processed at once: bounds the memory


def compress(mix: NDArray[np.float32], stems: Sequence[NDArray[np.float32]], sample_rate: int) -> None:
    """Compress `mix` (2, N) in place, and `stems` by the same gain, so that they still sum to it."""
    step = max(1, sample_count(GAIN_STEP_S, sample_rate))
    curve = gain_reduction(*_measure_levels(mix, step))
    points = (np.arange(len(curve)) + 0.5) * step
    for start in range(0, mix.shape[1], BLOCK_STEPS * step):
        samples = np.arange(start, min(start + BLOCK_STEPS * step, mix.shape[1]))
        gain = (10.0 ** (-np.interp(samples, points, curve) / 20.0)).astype(np.float32)
        for audio in (mix, *stems):
            audio[:, start : start + len(gain)] *= gain


def _measure_levels(mix: NDArray[np.float32], step: int) -> tuple[Floats, Floats]:
    """Return peak (G,) and mean square (G,) of each `step` samples of both channels; the last may be shorter."""
    peaks, powers = [], []
    for start in range(0, mix.shape[1], BLOCK_STEPS * step):
        block = np.abs(mix[:, start : start + BLOCK_STEPS * step]).astype(float)
        edges = np.arange(0, block.shape[1], step)
        peaks.append(np.maximum.reduceat(block.max(0), edges))
        powers.append(np.add.reduceat((block**2).mean(0), edges) / np.diff(np.append(edges, block.shape[1])))
    return np.concatenate(peaks), np.concatenate(powers)


def gain_reduction(peak: Floats, power: Floats) -> Floats:
    """Return the gain reduction (G,) in dB of `peak` (G,) against the surrounding `power` (G,)."""
    half_window = round(WINDOW_S / GAIN_STEP_S / 2)
    total = np.concatenate([[0.0], np.cumsum(power)])
    first = np.maximum(np.arange(len(power)) - half_window, 0)
    last = np.minimum(np.arange(len(power)) + half_window, len(power))
    surrounding = (total[last] - total[first]) / (last - first)
    excess = 20.0 * np.log10(peak + 1e-9) - 10.0 * np.log10(np.maximum(surrounding, 1e-12)) - THRESHOLD_DB
    target = np.maximum(excess, 0.0) * (1.0 - 1.0 / RATIO)
    time = every(1.0 / GAIN_STEP_S, len(power) * GAIN_STEP_S)[: len(power)]
    release = np.maximum.accumulate(target + RELEASE_DB_PER_S * time) - RELEASE_DB_PER_S * time
    attack = np.maximum.accumulate((target - ATTACK_DB_PER_S * time)[::-1])[::-1] + ATTACK_DB_PER_S * time
    return np.maximum(release, attack)
