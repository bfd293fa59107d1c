"""Window plan of a diffusion model of fixed length, over a whole piece or an inpainted range.

Each window continues from known music before or behind it. All lengths and positions are latent frames.
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """A window that begins at frame `start`, of which the frames `output_start` to `output_end` are used."""

    start: int
    output_start: int
    output_end: int


def plan_windows(range_start: int, range_end: int, *, total: int, window: int, overlap: int) -> list[Window]:
    """Plan windows whose outputs cover the frames `range_start` to `range_end` of a piece of `total`.

        piece     ..known..|------ range ------|..known..
        window 1     [overlap|--output--]
        window 2             [overlap|--output--|overlap]

    Args:
        range_start, range_end: The frames to generate; the rest of the piece is known.
        total: Frames of the piece. The window of a piece shorter than it extends beyond its end.
        window: Frames of one window.
        overlap: Known frames that a window includes on either side, at least, where there are as many. Where there is
            room for more, both sides get half of it.
    """
    assert 0 <= range_start < range_end <= total, f"nothing to write from {range_start} to {range_end} of {total}"
    assert 0 <= overlap <= window // 3, f"an overlap of {overlap} is more than a third of a window of {window}"
    windows: list[Window] = []
    overlap_after = min(overlap, total - range_end)
    while range_start < range_end:
        overlap_before, remaining = min(overlap, range_start), range_end - range_start
        if remaining <= window - overlap_before - overlap_after:
            room = window - remaining
            start = min(max(range_start - max(room // 2, overlap_before), 0), max(total - window, 0))
            windows.append(Window(start, range_start, range_end))
            break
        start, end = range_start - overlap_before, range_start - overlap_before + window
        end = end if end < range_end else range_start + remaining // 2  # so that the last window, too, has both sides
        windows.append(Window(start, range_start, end))
        range_start = end
    return windows
