"""Statistics of pairs: which clip is given another's, and how sure a mean difference is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def derangements(count: int, num_rounds: int, seed: int = 0) -> NDArray[np.intp]:
    """(rounds, count): in each round a permutation of the clips that leaves none in its place; none meets one twice.

    Raises ValueError where there are fewer others than rounds.
    """
    if not 1 <= num_rounds < count:
        raise ValueError(f"{num_rounds} rounds need at least {num_rounds + 1} clips, not {count}")
    random = np.random.default_rng(seed)
    ring = random.permutation(count)
    found = np.empty((num_rounds, count), np.intp)
    for row, steps in enumerate(random.permutation(np.arange(1, count))[:num_rounds]):
        found[row, ring] = np.roll(ring, steps)
    return found


def bootstrap_ci(
    values: NDArray[np.floating], seed: int = 0, level: float = 0.95, num_resamples: int = 10_000
) -> tuple[float, float]:
    """Within which the mean of `values` (N,) lies, by the bootstrap's percentiles (Efron, 1979) over the N."""
    random = np.random.default_rng(seed)
    means = values[random.integers(len(values), size=(num_resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
