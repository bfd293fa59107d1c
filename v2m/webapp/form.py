"""Values that a visitor enters: the fields of the page, and a range of seconds to inpaint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from v2m.core.types import Controls
from v2m.pipeline.report import Axis

WORD_FIELDS = ("genres", "instruments", "moods", "timbres", "negative")
MAX_CANDIDATES = 4
SNAP_S = 0.3  # seconds within which a click means the beat
RANGE_COLOR, EDGE_COLOR = (255, 190, 60, 70), (214, 120, 0, 255)  # with opacity


@dataclass(frozen=True)
class Form:
    """Values of the fields; empty texts and None are "not given". Lists are words with commas between."""

    caption: str = ""
    genres: str = ""
    instruments: str = ""
    moods: str = ""
    timbres: str = ""
    tempo: float | None = None
    key: str = ""
    vocals: bool = False
    lyrics: str = ""
    negative: str = ""
    melody: str | None = None
    reference: str | None = None
    seed: float | None = 0
    candidates: float = 1
    original: str = "replace"
    lufs: float | None = -14.0
    start: float | None = None
    end: float | None = None

    def overrides(self, max_seconds: float) -> dict[str, Any]:
        """Return the values as of `load_recipe`; `max_seconds` is the longest video."""
        texts = {name: " ".join(str(getattr(self, name) or "").split()) for name in ("caption", "key", *WORD_FIELDS)}
        tags = {**texts, "lyrics": self.lyrics, "tempo": self.tempo, "vocals": self.vocals}
        values: dict[str, Any] = {f"tags.{name}": value for name, value in tags.items() if value}
        values |= {"mix.original": self.original, "mix.lufs": self.lufs, "limits.duration": max_seconds}
        values |= {"start": self.start or None, "end": self.end or None, "seed": int(self.seed or 0)}
        return {**values, "candidates": min(MAX_CANDIDATES, max(1, int(self.candidates)))}

    def controls(self) -> Controls:
        """Return the sound files to follow."""
        reference = (Path(self.reference),) if self.reference else ()
        return Controls(reference, Path(self.melody) if self.melody else None)


FIELDS = tuple(field.name for field in fields(Form))
LABELS = {
    "caption": "What is seen", "genres": "Genres", "instruments": "Instruments", "moods": "Moods", "timbres": "Timbres",
    "tempo": "Tempo, beats a minute", "key": "Key", "negative": "Without", "seed": "Seed", "candidates": "Takes",
    "melody": "Melody to follow", "reference": "Style to follow", "vocals": "With singing, where the recipe can",
    "lyrics": "Words, under [verse] and [chorus]", "original": "The video's own sound", "lufs": "Loudness",
    "start": "Music from second", "end": "Music to second", "inpaint": "Part from second",
}  # fmt: skip


def tag_fields(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that show `tags`."""
    words = {name: ", ".join(tags.get(name) or ()) for name in WORD_FIELDS}
    return {**words, "caption": tags.get("caption", ""), "tempo": tags.get("tempo"), "key": tags.get("key") or ""}


@dataclass(frozen=True)
class TimeRange:
    """Seconds of the video; `end` is None after the first click, both are None before it."""

    start: float | None = None
    end: float | None = None

    @property
    def is_complete(self) -> bool:
        return self.start is not None and self.end is not None and self.start < self.end

    def after_click(self, axis: Axis, column: float, beats: Sequence[float]) -> TimeRange:
        """Return the range after a click at pixel `column`, on a beat or end of the music that is near."""
        second = axis.to_seconds(column)
        nearest = min((axis.start, axis.end, *beats), key=lambda beat: abs(beat - second))
        second = round(nearest if abs(nearest - second) <= SNAP_S else second, 2)
        if self.start is None or self.end is not None or second == self.start:
            return TimeRange(second)
        return TimeRange(min(self.start, second), max(self.start, second))

    def draw_on(self, report: Path) -> Path:
        """Return a copy of the report that shows the range, or itself where nothing is chosen.

        Raises ValueError where it is no report, OSError where it is gone.
        """
        if self.start is None:
            return report
        from PIL import Image, ImageDraw

        axis = Axis.from_png(report)
        with Image.open(report) as image:
            picture = image.convert("RGBA")
        seconds = (self.start, self.end or self.start)
        ends = [axis.to_column(min(max(second, axis.start), axis.end)) for second in seconds]
        overlay = Image.new("RGBA", picture.size, (0, 0, 0, 0))
        draw = ImageDraw.Draw(overlay)
        draw.rectangle((min(ends), 0, max(ends), picture.height), fill=RANGE_COLOR)
        for column in ends:
            draw.line((column, 0, column, picture.height), fill=EDGE_COLOR, width=3)
        out = report.with_name(f"{report.stem}.chosen{report.suffix}")
        Image.alpha_composite(picture, overlay).convert("RGB").save(out)
        return out
