"""Derangements of clips, and bootstrap confidence intervals of means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def derangements(count: int, num_rounds: int, seed: int = 0) -> NDArray[np.intp]:
    """(num_rounds, count): permutations of the clips that leave none in its place; no pair occurs twice.

    Raises ValueError where there are fewer other clips than rounds.
    """
    if not 1 <= num_rounds < count:
        raise ValueError(f"{num_rounds} rounds need at least {num_rounds + 1} clips, not {count}")
    random = np.random.default_rng(seed)
    ring = random.permutation(count)
    permutations = np.empty((num_rounds, count), np.intp)
    for row, shift in enumerate(random.permutation(np.arange(1, count))[:num_rounds]):
        permutations[row, ring] = np.roll(ring, shift)
    return permutations


def bootstrap_ci(
    values: NDArray[np.floating], seed: int = 0, level: float = 0.95, num_resamples: int = 10_000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron, 1979) of the mean of `values` (N,)."""
    random = np.random.default_rng(seed)
    means = values[random.integers(len(values), size=(num_resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
