"""Derangements and bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.evaluation.distances import bootstrap_ci, derangements


@pytest.mark.parametrize(("count", "rounds"), [(2, 1), (5, 4), (48, 4)])
def test_derangements_have_no_fixed_point_and_no_repeated_pair(count: int, rounds: int) -> None:
    found = derangements(count, rounds)
    assert found.shape == (rounds, count)
    assert (np.sort(found, axis=1) == np.arange(count)).all()  # as often given as taken
    assert all(len({own, *column}) == rounds + 1 for own, column in enumerate(found.T.tolist()))
    assert (derangements(count, rounds) == found).all()


def test_too_many_derangements_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rounds need at least 6 clips, not 5"):
        derangements(5, 5)


def test_interval_contains_the_mean() -> None:
    """The bounds of many values are about 1.96 standard errors from the mean."""
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap_ci(values)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_interval_coverage() -> None:
    random = np.random.default_rng(1)
    held = [
        low <= 0.5 <= high for low, high in (bootstrap_ci(random.random(40), num_resamples=500) for _ in range(300))
    ]
    assert 0.90 <= np.mean(held) <= 0.98
