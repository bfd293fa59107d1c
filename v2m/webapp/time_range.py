"""A part of the music, chosen by two clicks on its report picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from v2m.pipeline.report import Axis

NEAR = 0.3  # seconds within which a click means the beat
BAND, EDGE = (255, 190, 60, 70), (214, 120, 0, 255)  # colors of the part, with how much they cover


@dataclass(frozen=True)
class Part:
    """Seconds of the video; `end` is None after the first click, both are None before it."""

    begin: float | None = None
    end: float | None = None

    @property
    def whole(self) -> bool:
        return self.begin is not None and self.end is not None and self.begin < self.end

    def clicked(self, axis: Axis, column: float, beats: Sequence[float]) -> Part:
        """The part after a click at pixel `column`: on the nearest beat, or an end of the music, if one is near."""
        second = axis.second(column)
        nearest = min((axis.begin, axis.end, *beats), key=lambda beat: abs(beat - second))
        second = round(nearest if abs(nearest - second) <= NEAR else second, 2)
        if self.begin is None or self.end is not None or second == self.begin:
            return Part(second)
        return Part(min(self.begin, second), max(self.begin, second))


def marked(report: Path, part: Part) -> Path:
    """The report with the part marked, in a file beside it; the report itself where nothing is chosen.

    Raises:
        ValueError: It is no report.
        OSError: It is gone.
    """
    if part.begin is None:
        return report
    from PIL import Image, ImageDraw

    axis = Axis.of(report)
    with Image.open(report) as image:
        picture = image.convert("RGBA")
    ends = [axis.column(min(max(second, axis.begin), axis.end)) for second in (part.begin, part.end or part.begin)]
    cover = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(cover)
    pen.rectangle((min(ends), 0, max(ends), picture.height), fill=BAND)
    for column in ends:
        pen.line((column, 0, column, picture.height), fill=EDGE, width=3)
    out = report.with_name(f"{report.stem}.chosen{report.suffix}")
    Image.alpha_composite(picture, cover).convert("RGB").save(out)
    return out
