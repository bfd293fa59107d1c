"""Distances against scipy, closed forms and definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, stats

from v2m.core.types import Floats
from v2m.evaluation.distances import (
    basic_bootstrap_ci,
    bootstrap_frechet,
    cosine_similarity,
    coverage,
    density,
    frechet_distance,
    kl_divergence,
)


def sample_with_moments(mean: Floats, covariance: Floats, count: int, seed: int) -> Floats:
    """(count, D) samples with exactly that mean and covariance."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return x @ np.linalg.cholesky(covariance).T + mean


def frechet_by_scipy(a: Floats, b: Floats) -> float:
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(ca @ cb)
    return float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(ca + cb - 2 * np.real(root)))


def test_frechet_distance_matches_the_closed_form() -> None:
    """For diagonal covariances: the squared distances of means and of standard deviations, summed."""
    means, deviations = (
        (np.array([0.0, 1.0, -2.0]), np.array([3.0, 1.0, 0.5])),
        (
            np.array([1.0, 2.0, 0.1]),
            np.array([0.5, 2.5, 3.0]),
        ),
    )
    a, b = (sample_with_moments(m, np.diag(d**2), n, n) for m, d, n in zip(means, deviations, (40, 70), strict=True))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (60, 200, 64), (2000, 2000, 32)])
def test_frechet_distance_matches_scipy(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(d)
    a = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    b = rng.normal(size=(m, d)) @ rng.normal(size=(d, d))
    assert frechet_distance(a, b) == pytest.approx(frechet_by_scipy(a, b), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_frechet_distance_with_fewer_embeddings_than_dimensions() -> None:
    """With singular covariances the matrix square root is inaccurate: the reference uses eigenvalues."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(10, 64)), rng.normal(size=(12, 64)) + 0.3
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values = np.linalg.eigvals(ca @ cb).real
    shared = np.sqrt(np.maximum(values, 0)).sum()
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(ca + cb) - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_refuses_too_few_or_mismatched_embeddings() -> None:
    with pytest.raises(ValueError, match="two embeddings or more on each side, not 1 and 5"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="must be"):
        frechet_distance(np.zeros((3, 4)), np.zeros((3, 5)))


def test_frechet_interval_coverage() -> None:
    """30 clips of 3 embeddings, whose distance as it comes out is too high by about a fifth."""
    rng, dimensions, moved = np.random.default_rng(5), 8, 0.6
    true, held, percentile, values = dimensions * moved**2, [], [], []
    for trial in range(80):
        a = [rng.normal(size=(3, dimensions)) for _ in range(30)]
        b = [rng.normal(size=(3, dimensions)) + moved for _ in range(30)]
        value, draws = frechet_distance(np.concatenate(a), np.concatenate(b)), bootstrap_frechet(a, b, 100, seed=trial)
        low, high = basic_bootstrap_ci(value, draws)
        held.append(low <= true <= high)
        values.append(value)
        percentile.append(np.percentile(draws, 2.5) <= true)
    assert np.mean(values) > true + 0.1
    assert np.mean(held) >= 0.85
    assert np.mean(percentile) < np.mean(held)  # the plain percentiles would be worse


def neighbors(real: Floats, k: int) -> list[float]:
    return [
        sorted(float(np.linalg.norm(x - y)) for j, y in enumerate(real) if j != i)[k - 1] for i, x in enumerate(real)
    ]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_density_and_coverage_match_the_definition(k: int) -> None:
    rng = np.random.default_rng(k)
    real, made = rng.normal(size=(23, 3)), rng.normal(size=(31, 3)) * 1.3 + 0.4
    radii = neighbors(real, k)
    inside = [[float(np.linalg.norm(y - x)) <= radii[i] for i, x in enumerate(real)] for y in made]
    assert density(real, made, k).mean() == pytest.approx(sum(map(sum, inside)) / (k * len(made)))
    assert coverage(real, made, k).mean() == pytest.approx(sum(map(any, zip(*inside, strict=True))) / len(real))


def test_density_and_coverage_of_one_distribution_match_the_paper() -> None:
    """Lemmas 1 and 2 of Naeem et al.: density 1, coverage 1 − (N − 1 … N − k) / (2N − 1 … 2N − k)."""
    n, k = 400, 5
    real, made = (np.random.default_rng(seed).normal(size=(n, 6)) for seed in (0, 1))
    expected = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    assert density(real, made, k).mean() == pytest.approx(1, abs=0.1)
    assert coverage(real, made, k).mean() == pytest.approx(expected, abs=0.03)
    assert coverage(real, real[:1].repeat(n, axis=0), k).mean() < 0.1  # one piece again and again covers little
    with pytest.raises(ValueError, match="need 6 real embeddings or more, not 5"):
        density(real[:5], made)


def test_kl_divergence_matches_scipy_and_is_finite_for_absent_classes() -> None:
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.3, 0.1])
    assert kl_divergence(p, q) == pytest.approx(float(stats.entropy(p, q)), rel=1e-6)
    assert kl_divergence(p, q) != pytest.approx(kl_divergence(q, p), rel=1e-2)
    assert kl_divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert 5 < kl_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) < 25


def test_cosine_similarity_ignores_length_and_is_0_for_silence() -> None:
    assert cosine_similarity(np.array([1.0, 1.0]), np.array([5.0, 0.0])) == pytest.approx(np.sqrt(0.5))
    assert cosine_similarity(np.zeros(2), np.ones(2)) == 0.0
