"""From a click on the report picture to a second of the video."""

from __future__ import annotations

from pathlib import Path

from v2m.report import AXIS


def second_at(picture: Path, x: float) -> float | None:
    """The second that stands `x` pixels from the left; None where the picture does not say how its axis lies.

    Clicks beside the axis count as its ends.
    """
    from PIL import Image

    with Image.open(picture) as image:
        said = str(image.info.get(AXIS, "")).split()
    if len(said) != 3:
        return None
    left, right, seconds = map(float, said)
    share = min(1.0, max(0.0, (x - left) / (right - left)))
    return round(share * seconds, 2)


def chosen(span: tuple[float | None, float | None], second: float) -> tuple[float | None, float | None]:
    """The span after another click: the first begins it, the second ends it, the third begins a new one."""
    begin, end = span
    if begin is None or end is not None:
        return second, None
    return min(begin, second), max(begin, second)
