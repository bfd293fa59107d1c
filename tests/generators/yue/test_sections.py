"""Section lengths: exact total, bounds, and alignment with cuts."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.generators.yue.engine import plan_section_lengths

LONGEST = 1500  # 30 s at 50 Hz


@pytest.mark.parametrize("seed", range(20))
def test_section_lengths_sum_to_the_total_and_respect_the_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = int(rng.integers(1, 40_000))
    cuts = [(float(place), float(rng.uniform())) for place in rng.uniform(0, total, int(rng.integers(0, 200)))]
    count = None if seed % 2 else int(rng.integers(1, 12))
    result = plan_section_lengths(total, cuts, LONGEST, count)
    assert sum(result) == total
    assert max(result) <= LONGEST
    assert min(result) >= 1


def test_sections_without_cuts_are_even_and_minimal_in_number() -> None:
    assert plan_section_lengths(3750, [], LONGEST) == [1250, 1250, 1250]
    assert plan_section_lengths(1500, [], LONGEST) == [1500]
    assert plan_section_lengths(1, [], LONGEST) == [1]


def test_section_ends_on_a_near_strong_cut() -> None:
    cuts = [(1180.0, 0.9), (1250.0, 0.1), (400.0, 1.0), (2600.0, 0.8)]
    assert plan_section_lengths(3750, cuts, LONGEST) == [1180, 1420, 1150]


def test_cut_that_makes_the_remaining_section_too_long_is_skipped() -> None:
    assert plan_section_lengths(3000, [(1400.0, 1.0)], LONGEST) == [1500, 1500]


def test_requested_section_count_is_clamped_to_the_valid_range() -> None:
    assert len(plan_section_lengths(3000, [], LONGEST, count=4)) == 4
    assert len(plan_section_lengths(3000, [], LONGEST, count=1)) == 2
    assert len(plan_section_lengths(1000, [], LONGEST, count=9, shortest=400)) == 2
