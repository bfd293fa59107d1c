"""Window plans of a whole piece and of an inpainted range."""

from __future__ import annotations

import pytest

from v2m.generators.sonique.windowed_sampling import Window, plan_windows


def test_a_short_piece_is_one_window_that_may_reach_beyond_it() -> None:
    assert plan_windows(0, 40, total=40, window=64, overlap=16) == [Window(0, 0, 40)]
    assert plan_windows(0, 64, total=64, window=64, overlap=16) == [Window(0, 0, 64)]


def test_a_long_piece_goes_on_from_what_stands_and_ends_with_a_whole_window() -> None:
    assert plan_windows(0, 130, total=130, window=64, overlap=16) == [
        Window(0, 0, 64),
        Window(48, 64, 112),
        Window(66, 112, 130),
    ]


@pytest.mark.parametrize("total", [65, 100, 640, 1001])
@pytest.mark.parametrize("part", [(0, 1), (0, 64), (0.1, 0.2), (0.45, 0.55), (0.02, 0.97), (0.3, 1), (0.99, 1)])
def test_every_frame_is_written_once_beside_enough_of_what_stands(total: int, part: tuple[float, float]) -> None:
    window, overlap = 64, 20
    first, last = int(part[0] * total), min(int(part[1] * total), total)
    at = first
    for begin, low, high in plan_windows(first, last, total=total, window=window, overlap=overlap):
        assert low == at < high
        assert begin <= low
        assert high <= begin + window
        assert 0 <= begin <= total - window
        assert low - begin >= min(overlap, low)
        if high == last:
            assert begin + window - high >= min(overlap, total - last)
        at = high
    assert at == last


def test_a_part_in_the_middle_has_as_much_on_both_sides() -> None:
    assert plan_windows(300, 320, total=1000, window=64, overlap=16) == [Window(278, 300, 320)]
