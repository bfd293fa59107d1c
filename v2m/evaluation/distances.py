"""Distances between (sets of) N, M embeddings (D,) and distributions (K,); bootstraps; shuffles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Floats

NUM_NEIGHBORS = 5
NUM_DRAWS = 200  # of the bootstrap of a Fréchet distance, each with a decomposition
CI_PERCENTILES = (2.5, 97.5)


def frechet_distance(a: Floats, b: Floats) -> float:
    """Return the Fréchet distance of normal fits to (N, D) and (M, D).

    It is |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½): Dowson and Landau, "The Fréchet Distance between Multivariate Normal
    Distributions" (1982), with covariances of N − 1. With the centered embeddings A and B, tr (Σa Σb)^½ is the sum of
    the singular values of A Bᵀ over √((N − 1)(M − 1)): nothing is squared, no root of a matrix is taken, and no N is
    too small. With few embeddings the value is too high: below D + 1 of them the covariances lack rank. Raises
    ValueError where there are fewer than two in one of them, or their dimensions differ.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings must be (N, D) and (M, D), not {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Fréchet distance needs two embeddings or more on each side, not {len(a)} and {len(b)}")
    (mean_a, root_a), (mean_b, root_b) = _root(a), _root(b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(0.0, float(distance))  # of equal sets slightly negative, by rounding


def _root(x: Floats) -> tuple[Floats, Floats]:
    """Return the mean (D,), and R (min(N, D), D) with RᵀR the covariance."""
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    centered = (x - mean) / np.sqrt(len(x) - 1)
    return mean, np.asarray(np.linalg.qr(centered, mode="r")) if len(x) > x.shape[1] else centered


def bootstrap_frechet(
    a: Sequence[Floats], b: Sequence[Floats], num_draws: int = NUM_DRAWS, seed: int = 0, *, paired: bool = False
) -> Floats:
    """Return (num_draws,) Fréchet distances of clips drawn with replacement.

    Each clip has all of its embeddings (n, D). If `paired`, as two pieces of music for a clip are, the same clips are
    drawn of `a` and `b`. The same seed draws the same clips, so that systems can be compared draw by draw.
    """
    random = np.random.default_rng(seed)
    distances = []
    for _ in range(num_draws):
        chosen = random.integers(len(a), size=len(a))
        other = chosen if paired else random.integers(len(b), size=len(b))
        drawn_a, drawn_b = np.concatenate([a[k] for k in chosen]), np.concatenate([b[k] for k in other])
        distances.append(frechet_distance(drawn_a, drawn_b))
    return np.array(distances)


def basic_bootstrap_ci(value: float, draws: Floats) -> tuple[float, float]:
    """Return the basic bootstrap's 95 % interval: percentiles of `draws`, reflected at `value`.

    Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 5.2. A Fréchet distance of few clips
    is too high, and that of drawn clips, some twice, is higher still by about as much; reflecting removes this bias.
    """
    low, high = np.percentile(draws, CI_PERCENTILES)
    return 2 * value - float(high), 2 * value - float(low)


def density(real: Floats, generated: Floats, k: int = NUM_NEIGHBORS) -> Floats:
    """(M,) the number of neighborhoods of `real` (N, D) that each of `generated` (M, D) lies in, over `k`.

    A neighborhood reaches to the k-th nearest other embedding of its set. The mean is the density of Naeem et al.,
    "Reliable Fidelity and Diversity Metrics for Generative Models" (2020), equation 6. Raises ValueError where `real`
    has no k others.
    """
    return np.asarray(_within_knn_ball(real, generated, k).sum(axis=0) / k)


def coverage(real: Floats, generated: Floats, k: int = NUM_NEIGHBORS) -> Floats:
    """(N,) 1 for each of `real` (N, D) with some of `generated` in its neighborhood (equation 7), else 0."""
    return np.asarray(_within_knn_ball(real, generated, k).any(axis=1), np.float64)


def _within_knn_ball(real: Floats, generated: Floats, k: int) -> NDArray[np.bool_]:
    """(N, M) bool: whether a generated embedding is in the neighborhood of a real one."""
    if len(real) <= k:
        raise ValueError(f"{k} nearest others need {k + 1} real embeddings or more, not {len(real)}")
    among_real = _squared_distances(real, real)
    np.fill_diagonal(among_real, -1.0)  # nearer than any other
    radii = np.partition(among_real, k, axis=1)[:, k]
    return _squared_distances(real, generated) <= radii[:, None]


def _squared_distances(a: Floats, b: Floats) -> Floats:
    """(N, M) squared distances; row by row, so that equal embeddings have exactly 0."""
    return np.stack([np.square(b - row).sum(axis=1) for row in np.asarray(a, np.float64)])


def kl_divergence(p: Floats, q: Floats, min_prob: float = 1e-9) -> float:
    """Return KL(p ‖ q) in nats of distributions (K,), with probabilities of at least `min_prob`."""
    p, q = (np.maximum(np.asarray(probs, np.float64), min_prob) for probs in (p, q))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def cosine_similarity(a: Floats, b: Floats) -> float:
    """Return the cosine similarity of two embeddings (D,), −1 to 1; 0 where one of them is 0."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0


def derangements(count: int, num_rounds: int, seed: int = 0) -> NDArray[np.intp]:
    """(num_rounds, count): permutations of the clips that leave none in its place; no pair occurs twice."""
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
