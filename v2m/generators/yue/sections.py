"""Where the sections of a piece begin, so that together they are as long as the video and change with its scenes.

All places are codec frames. YuE was trained on sections of up to about 30 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MIN_LENGTH_RATIO = 0.5  # of the mean length: no section is shorter, where a cut pulls its end forward
CUT_REACH_RATIO = 0.25  # of the mean length: how far from its even place a section's end looks for a cut


def plan_section_lengths(
    total: int, cuts: Sequence[tuple[float, float]], longest: int, count: int | None = None, shortest: int = 1
) -> list[int]:
    """Frames of each section: they sum to `total`, and none is longer than `longest`.

    Args:
        total: Frames of the whole piece, at least 1.
        cuts: (place in frames, strength 0–1) of the video's cuts. A section ends on the one that weighs most among
            those near its even place: its strength less the square of its distance over `REACH` of the mean length.
        longest: Frames that a section may have.
        count: How many sections are wished for: more are made where they would be too long, fewer where they would be
            shorter than `shortest` on the mean. None makes as few as can be.
    """
    fewest = math.ceil(total / longest)
    most = max(fewest, total // shortest)
    count = min(max(count or fewest, fewest), most)
    ends: list[int] = []
    for left in range(count, 1, -1):
        begin = ends[-1] if ends else 0
        ends.append(_section_end(begin, total, cuts, remaining=left, longest=longest))
    ends.append(total)
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _section_end(start: int, total: int, cuts: Sequence[tuple[float, float]], *, remaining: int, longest: int) -> int:
    """Where the section that begins at `begin` ends, so that the `left` − 1 after it can still hold the rest."""
    mean = (total - start) / remaining
    low = max(start + math.ceil(MIN_LENGTH_RATIO * mean), total - longest * (remaining - 1))
    high = min(start + longest, total - (remaining - 1))
    even = min(max(round(start + mean), low), high)
    near = [(round(place), strength - ((place - even) / (CUT_REACH_RATIO * mean)) ** 2) for place, strength in cuts]
    allowed = [(place, weight) for place, weight in near if low <= place <= high and weight > 0]
    return max(allowed, key=lambda each: each[1])[0] if allowed else even
