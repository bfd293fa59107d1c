"""Statistics of pairs: which clip is given another's, and how sure a mean difference is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000


def others(count: int, rounds: int, seed: int = 0) -> NDArray[np.intp]:
    """(rounds, count): in each round a permutation of `count` clips that leaves none in its place; no clip meets the same
    one twice. Raises ValueError where there are fewer others than rounds."""
    if not 1 <= rounds < count:
        raise ValueError(f"{rounds} rounds need at least {rounds + 1} clips, not {count}")
    random = np.random.default_rng(seed)
    ring = random.permutation(count)
    found = np.empty((rounds, count), np.intp)
    for row, steps in enumerate(random.permutation(np.arange(1, count))[:rounds]):
        found[row, ring] = np.roll(ring, steps)
    return found


def interval(values: NDArray[np.floating], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Within which the mean of `values` (N,) lies, by the bootstrap's percentiles (Efron, 1979) over the N."""
    random = np.random.default_rng(seed)
    means = np.array([values[random.integers(len(values), size=len(values))].mean() for _ in range(DRAWS)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
