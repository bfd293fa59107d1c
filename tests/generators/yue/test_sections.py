"""Sections fill the piece exactly, keep within their bounds and end on cuts."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.generators.yue.engine import plan_section_lengths

LONGEST = 1500  # 30 s at 50 Hz


@pytest.mark.parametrize("seed", range(20))
def test_sections_sum_to_the_whole_and_none_is_too_long(seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = int(rng.integers(1, 40_000))
    cuts = [(float(place), float(rng.uniform())) for place in rng.uniform(0, total, int(rng.integers(0, 200)))]
    count = None if seed % 2 else int(rng.integers(1, 12))
    found = plan_section_lengths(total, cuts, LONGEST, count)
    assert sum(found) == total
    assert max(found) <= LONGEST
    assert min(found) >= 1


def test_without_cuts_sections_are_even_and_as_few_as_can_be() -> None:
    assert plan_section_lengths(3750, [], LONGEST) == [1250, 1250, 1250]
    assert plan_section_lengths(1500, [], LONGEST) == [1500]
    assert plan_section_lengths(1, [], LONGEST) == [1]


def test_a_section_ends_on_the_cut_that_is_near_and_strong() -> None:
    cuts = [(1180.0, 0.9), (1250.0, 0.1), (400.0, 1.0), (2600.0, 0.8)]
    assert plan_section_lengths(3750, cuts, LONGEST) == [1180, 1420, 1150]


def test_a_cut_that_would_leave_too_much_for_the_rest_is_passed_over() -> None:
    assert plan_section_lengths(3000, [(1400.0, 1.0)], LONGEST) == [1500, 1500]


def test_a_wished_count_is_kept_within_what_the_length_allows() -> None:
    assert len(plan_section_lengths(3000, [], LONGEST, count=4)) == 4
    assert len(plan_section_lengths(3000, [], LONGEST, count=1)) == 2
    assert len(plan_section_lengths(1000, [], LONGEST, count=9, shortest=400)) == 2
