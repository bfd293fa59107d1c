"""How far two sets of embeddings lie from each other, and one distribution from another.

N, M embeddings of D numbers; K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Floats

NUM_NEIGHBORS = 5
NUM_DRAWS = 200  # of the bootstrap of a Fréchet distance, each of which takes a decomposition
CI_PERCENTILES = (2.5, 97.5)  # percentiles


def frechet_distance(a: Floats, b: Floats) -> float:
    """Between the normal distributions of `a` (N, D) and `b` (M, D): |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½).

    Dowson and Landau, "The Fréchet Distance between Multivariate Normal Distributions" (1982), with covariances of
    N − 1. With the centerd embeddings A and B, tr (Σa Σb)^½ is the sum of the singular values of A Bᵀ over
    √((N − 1)(M − 1)): nothing is squared, no root of a matrix is taken, and no N is too small. With few embeddings the
    value is too high: below D + 1 of them the covariances are not whole.

    Raises:
        ValueError: There are fewer than two in one of them, or their widths differ.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings must be (N, D) and (M, D), not {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Fréchet distance needs two embeddings or more on each side, not {len(a)} and {len(b)}")
    (mean_a, root_a), (mean_b, root_b) = _root(a), _root(b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    apart = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(0.0, float(apart))  # of the same sets a little below, by rounding


def _root(x: Floats) -> tuple[Floats, Floats]:
    """The mean (D,), and R (min(N, D), D) of which RᵀR is the covariance."""
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    centerd = (x - mean) / np.sqrt(len(x) - 1)
    return mean, np.asarray(np.linalg.qr(centerd, mode="r")) if len(x) > x.shape[1] else centerd


def bootstrap_frechet(
    a: Sequence[Floats], b: Sequence[Floats], num_draws: int = NUM_DRAWS, seed: int = 0, *, paired: bool = False
) -> Floats:
    """(draws,) Fréchet distances of clips drawn with replacement, each with all of its embeddings (n, D).

    Of `paired` ones, such as two pieces of music for a clip, the same are drawn of `a` and `b`. The same seed draws the
    same clips, so that systems can be compared draw by draw.
    """
    random = np.random.default_rng(seed)
    found = np.empty(num_draws)
    for draw in range(num_draws):
        chosen = random.integers(len(a), size=len(a))
        other = chosen if paired else random.integers(len(b), size=len(b))
        found[draw] = frechet_distance(np.concatenate([a[k] for k in chosen]), np.concatenate([b[k] for k in other]))
    return found


def basic_bootstrap_ci(value: float, draws: Floats) -> tuple[float, float]:
    """The basic bootstrap's 95 % (Davison and Hinkley, 1997, 5.2): percentiles of `draws`, reflected at `value`.

    A Fréchet distance is too high where there are few clips, and that of drawn clips, of which some are there twice, is
    higher still by about as much; reflecting takes that away.
    """
    low, high = np.percentile(draws, CI_PERCENTILES)
    return 2 * value - float(high), 2 * value - float(low)


def density(real: Floats, generated: Floats, k: int = NUM_NEIGHBORS) -> Floats:
    """(M,) of each in `made` (M, D), how many of the spheres around `real` (N, D) it lies in, over `k`.

    A sphere reaches to the k-th nearest other of its set. Their mean is the density of Naeem et al., "Reliable Fidelity
    and Diversity Metrics for Generative Models" (2020), equation 6.

    Raises:
        ValueError: `real` has no k others.
    """
    return np.asarray(_within_knn_ball(real, generated, k).sum(axis=0) / k)


def coverage(real: Floats, generated: Floats, k: int = NUM_NEIGHBORS) -> Floats:
    """(N,) of each in `real` (N, D), 1 where one of `made` (M, D) or more lies in its sphere, else 0.

    Their mean is the coverage of Naeem et al. (2020), equation 7. Raises as `density`.
    """
    return np.asarray(_within_knn_ball(real, generated, k).any(axis=1), np.float64)


def _within_knn_ball(real: Floats, generated: Floats, k: int) -> NDArray[np.bool_]:
    """(N, M) whether the sphere of a real one has a made one in it."""
    if len(real) <= k:
        raise ValueError(f"{k} nearest others need {k + 1} real embeddings or more, not {len(real)}")
    own = _squared_distances(real, real)
    np.fill_diagonal(own, -1.0)  # nearer than any other
    radii = np.partition(own, k, axis=1)[:, k]
    return _squared_distances(real, generated) <= radii[:, None]


def _squared_distances(a: Floats, b: Floats) -> Floats:
    """(N, M) squared distances; row by row, so that those of equal ones are 0 and no rounding decides."""
    return np.stack([np.square(b - each).sum(axis=1) for each in np.asarray(a, np.float64)])


def kl_divergence(p: Floats, q: Floats, min_prob: float = 1e-9) -> float:
    """KL(p ‖ q) in nats of two distributions (K,); no probability is taken to be below `least`."""
    p, q = (np.maximum(np.asarray(each, np.float64), min_prob) for each in (p, q))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def cosine_similarity(a: Floats, b: Floats) -> float:
    """Of the angle between two embeddings (D,), −1 to 1; 0 where one of them is 0."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
