"""The plan of a Sketch piece: how its beats, bars and sections lie on the picture, before any note is chosen."""

from __future__ import annotations

from dataclasses import dataclass

from v2m.timing import TempoMap
from v2m.types import Floats


@dataclass(frozen=True)
class Bar:
    """A bar: it opens at beat `start` and lasts `beats` of them. `section` indexes `Plan.sections`."""

    start: int
    beats: int
    section: int


@dataclass(frozen=True)
class Passage:
    """A section of the form: bars `first` ≤ bar < `last`.

    `name`: "intro", "A", "B", "C", "ending"; a theme's letter returns when the passage is a return of it, and then
    `variant` counts the returns (0 = first time). `energy` 0–1 follows the picture's motion.
    """

    name: str
    variant: int
    first: int
    last: int
    energy: float


@dataclass(frozen=True)
class Hit:
    """A cut and where the music met it: `beat` is the nearest beat, `offset` = its time − the cut's, in seconds."""

    time: float
    strength: float
    beat: int
    offset: float
    downbeat: bool


@dataclass(frozen=True)
class Plan:
    """Where everything falls. `tempo_map` turns beats into seconds from the video's first frame.

    Bars follow each other without a gap from beat 0, which may lie after 0 s (a pick-up); the last bar is the ending's
    and opens with the final chord, which rings until `duration`. `energy` (len(bars),) 0–1 is the dynamic of each bar.
    """

    duration: float
    tempo: float
    tempo_map: TempoMap
    bars: tuple[Bar, ...]
    passages: tuple[Passage, ...]
    hits: tuple[Hit, ...]
    energy: Floats
