"""Section lengths that add up to the video's and end on its cuts where they can.

All positions are codec frames. YuE was trained on sections of up to about 30 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MIN_LENGTH_RATIO = 0.5  # of the mean length: no cut makes a section shorter
CUT_REACH_RATIO = 0.25  # of the mean length: largest distance of a cut from a section's even end


def plan_section_lengths(
    total: int, cuts: Sequence[tuple[float, float]], longest: int, count: int | None = None, shortest: int = 1
) -> list[int]:
    """Plan the frames of each section: they sum to `total`, none is longer than `longest`.

    Args:
        total: Frames of the whole piece, at least 1.
        cuts: (frame, strength 0–1) of the video's cuts. A section ends on the cut of the largest weight near its even
            end: strength − (distance / (`CUT_REACH_RATIO` · mean length))².
        longest: Maximum frames of a section.
        count: Requested number of sections: more are made where they would be too long, fewer where they would be
            shorter than `shortest` on average. None makes the fewest.
        shortest: Minimum frames of the mean section, for `count`.
    """
    fewest = math.ceil(total / longest)
    count = min(max(count or fewest, fewest), max(fewest, total // shortest))
    ends: list[int] = []
    for left in range(count, 1, -1):
        begin = ends[-1] if ends else 0
        ends.append(_section_end(begin, total, cuts, remaining=left, longest=longest))
    ends.append(total)
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _section_end(start: int, total: int, cuts: Sequence[tuple[float, float]], *, remaining: int, longest: int) -> int:
    """End of the section from `start` on, such that the `remaining` − 1 after it can hold the rest."""
    mean = (total - start) / remaining
    low = max(start + math.ceil(MIN_LENGTH_RATIO * mean), total - longest * (remaining - 1))
    high = min(start + longest, total - (remaining - 1))
    even = min(max(round(start + mean), low), high)
    weights = [(round(place), strength - ((place - even) / (CUT_REACH_RATIO * mean)) ** 2) for place, strength in cuts]
    allowed = [(place, weight) for place, weight in weights if low <= place <= high and weight > 0]
    return max(allowed, key=lambda cut: cut[1])[0] if allowed else even
