"""Window plans of a whole piece and of an inpainted range."""

from __future__ import annotations

import pytest

from v2m.generators.sonique.windowed_sampling import Window, plan_windows


def test_short_piece_is_a_single_window() -> None:
    assert plan_windows(0, 40, total=40, window=64, overlap=16) == [Window(0, 0, 40)]
    assert plan_windows(0, 64, total=64, window=64, overlap=16) == [Window(0, 0, 64)]


def test_long_piece_uses_overlapping_windows_and_ends_with_a_full_one() -> None:
    assert plan_windows(0, 130, total=130, window=64, overlap=16) == [
        Window(0, 0, 64),
        Window(48, 64, 112),
        Window(66, 112, 130),
    ]


@pytest.mark.parametrize("total", [65, 100, 640, 1001])
@pytest.mark.parametrize("part", [(0, 1), (0, 64), (0.1, 0.2), (0.45, 0.55), (0.02, 0.97), (0.3, 1), (0.99, 1)])
def test_every_frame_is_covered_once_with_the_required_overlap(total: int, part: tuple[float, float]) -> None:
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


def test_inpainting_window_is_centered_on_the_range() -> None:
    assert plan_windows(300, 320, total=1000, window=64, overlap=16) == [Window(278, 300, 320)]
