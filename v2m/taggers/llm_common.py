"""Parts shared by the model-based taggers: progress, the user's hints, filling of missing tags."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import Any

from v2m.core.types import ProgressFn, Tags, Video, filter_unwanted
from v2m.taggers.heuristic import HeuristicTagger

logger = logging.getLogger(__name__)

NEEDED = ("genres", "instruments", "moods")  # what no generator should be without
COUNTED = (*NEEDED, "timbres")


class Steps:
    """Progress over the parts of the work; never falls."""

    def __init__(self, progress: ProgressFn | None) -> None:
        self._progress, self._low, self._high, self._last = progress, 0.0, 1.0, 0.0

    def span(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self.reach(low)

    def reach(self, fraction: float) -> None:
        self._last = max(self._last, fraction)
        if self._progress is not None:
            self._progress(self._last)

    def counting(self, most: int) -> Counter:
        return Counter(self, self._low, (self._high - self._low) / most)


class Counter:
    """Streamer for `generate`: receives the prompt first, then each token."""

    def __init__(self, steps: Steps, start: float, step: float) -> None:
        self._steps, self._now, self._step = steps, start - step, step

    def put(self, value: Any) -> None:  # noqa: ARG002 - transformers' signature
        self._now += self._step
        self._steps.reach(self._now)

    def end(self) -> None:
        pass


def count(tags: Tags) -> int:
    return sum(len(getattr(tags, name)) for name in COUNTED)


def decided(hints: Tags) -> str:
    """Sentence with the user's hints, for the other tags to match; "" if there are none."""
    said: list[str] = []
    for field in fields(hints):
        value: Any = getattr(hints, field.name)
        if value and field.name in {*COUNTED, "tempo", "key", "caption"}:
            words = f"{value:g} BPM" if field.name == "tempo" else value if isinstance(value, str) else ", ".join(value)
            said.append(f"{field.name}: {words}")
    if hints.negative:
        said.append(f"avoid: {', '.join(hints.negative)}")
    return f"\nThis is decided already: {'; '.join(said)}." if said else ""


def completed(video: Video, found: Tags, hints: Tags, who: str) -> Tags:
    """`found` under `hints`, without what they do not want, and with what is lacking measured from the picture."""
    if not count(found):
        return replace(HeuristicTagger().tag(video, hints), lyrics=hints.lyrics or found.lyrics)
    kept = {name: filter_unwanted(getattr(found, name), hints.negative) for name in COUNTED}
    tags = replace(found, **kept).overridden_by(hints)
    if not hints.negative:  # what the model would avoid, unless it or the user has chosen it
        chosen = [word for name in COUNTED for word in getattr(tags, name)]
        tags = replace(tags, negative=[word for word in found.negative if filter_unwanted(chosen, [word]) == chosen])
    lacking = [name for name in NEEDED if not getattr(tags, name)]
    if not lacking:
        return tags
    logger.warning("%s named no %s: measured from the picture", who, " and no ".join(lacking))
    measured = HeuristicTagger().tag(video, Tags(genres=tags.genres, negative=tags.negative))
    return replace(tags, **{name: getattr(measured, name) for name in lacking})


def quoted(said: str) -> str:
    text = " ".join(said.split())
    return f"it said {text[:60]!r}{' …' if len(text) > 60 else ''}" if text else "it said nothing"
