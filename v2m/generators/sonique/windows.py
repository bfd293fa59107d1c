"""Which windows of a model's fixed length make up a piece, or write a part of it anew.

Each goes on from music that stands beside it, before or behind. All lengths and places are latent frames.
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Frames from `begin` on, as many as the model makes in one go, of which `first` to `last` are taken."""

    start: int
    output_start: int
    output_end: int


def plan_windows(range_start: int, range_end: int, *, total: int, window: int, overlap: int) -> list[Window]:
    """Windows that together write the frames `first` to `last` of a piece of `total`.

    Args:
        first, last: What is to be written; everything else of the piece stands.
        total: Frames of the piece. A window of a piece shorter than it reaches beyond its end.
        window: Frames of one.
        overlap: Frames at least that a window shares with what stands on either side, where that is as much. Where
            there is room for more, both sides get half of it.
    """
    assert 0 <= range_start < range_end <= total, f"nothing to write from {range_start} to {range_end} of {total}"
    assert 0 <= overlap <= window // 3, f"an overlap of {overlap} is more than a third of a window of {window}"
    found: list[Window] = []
    behind = min(overlap, total - range_end)
    while range_start < range_end:
        before, rest = min(overlap, range_start), range_end - range_start
        if rest <= window - before - behind:
            room = window - rest
            begin = min(max(range_start - max(room // 2, before), 0), max(total - window, 0))
            found.append(Window(begin, range_start, range_end))
            break
        begin, end = range_start - before, range_start - before + window
        end = end if end < range_end else range_start + rest // 2  # so that the last part, too, has both sides
        found.append(Window(begin, range_start, end))
        range_start = end
    return found
