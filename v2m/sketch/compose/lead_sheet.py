"""The lead sheet: plan, style, key and chords, looked up by beat. What every player reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import NamedTuple

from v2m.sketch.compose.chords import Chord, Key
from v2m.sketch.plan.plan import Bar, FormSection, Plan
from v2m.sketch.style import Style

INTRO_ENERGY_SHARE = 0.75  # of the following passage's energy


def rng_for(seed: str, purpose: str) -> Random:
    """Random choices for one purpose, the same in every process and apart from those for other purposes."""
    return Random(f"{seed} {purpose}")  # noqa: S311 (nothing here is a secret)


class Note(NamedTuple):
    """A note; `beat` and `length` in beats, `pitch` a MIDI key (of a drum kit: the drum), `velocity` 1–127."""

    beat: float
    length: float
    pitch: int
    velocity: int


@dataclass
class Part:
    """What one player plays. `swell`: (beat, 0–1) points of its expression. `level` dB, `pan` −1 to 1.

    `program` is a General MIDI program, or a kit's number when `drums`.
    """

    name: str
    stem: str
    program: int
    is_drums: bool = False
    level_db: float = 0.0
    pan: float = 0.0
    notes: list[Note] = field(default_factory=list)
    expression: list[tuple[float, float]] = field(default_factory=list)


class ChordSpan(NamedTuple):
    """A chord and the beats it lasts; it never crosses a bar line."""

    start: float
    beats: float
    chord: Chord
    bar: int


def section_label(passage: FormSection) -> str:
    """What a section is called to a reader: A, then A2 where it returns."""
    return f"{passage.name}{passage.variant + 1 if passage.variant else ''}"


@dataclass(frozen=True)
class LeadSheet:
    """`spans` follow each other without a gap over all the bars of `plan`."""

    plan: Plan
    style: Style
    key: Key
    spans: tuple[ChordSpan, ...]

    @cached_property
    def _span_starts(self) -> list[float]:
        return [span.start for span in self.spans]

    @cached_property
    def hit_strengths(self) -> dict[int, float]:
        """Beat → strength of the strongest cut that falls on it (within 70 ms)."""
        found: dict[int, float] = {}
        for hit in self.plan.hits:
            if abs(hit.offset) <= 0.07:
                found[hit.beat] = max(found.get(hit.beat, 0.0), hit.strength)
        return found

    @cached_property
    def downbeats(self) -> frozenset[int]:
        return frozenset(bar.start for bar in self.plan.bars)

    @property
    def last_bar(self) -> Bar:
        return self.plan.bars[-1]

    @cached_property
    def end_beat(self) -> float:
        """The beat at which the file ends."""
        return float(self.plan.tempo_map.time_to_beat(self.plan.duration))

    def span_index_at(self, beat: float) -> int:
        return max(0, bisect_right(self._span_starts, beat + 1e-6) - 1)

    def spans_in_bars(self, first: int, last: int) -> tuple[ChordSpan, ...]:
        """The chords of the bars `first` ≤ bar < `last`; the last bar of the piece cannot be among them."""
        bars = self.plan.bars
        return self.spans[self.span_index_at(bars[first].start) : self.span_index_at(bars[last].start)]

    def chord_at(self, beat: float) -> Chord:
        return self.spans[self.span_index_at(beat)].chord

    def sections(self) -> Iterator[tuple[int, FormSection]]:
        """(Place, passage), without the last bar, which belongs to the final chord; empty ones are left out.

        An intro is scored for more players than its own energy asks for, so that it leads up to what follows.
        """
        last = len(self.plan.bars) - 1
        for index, passage in enumerate(self.plan.sections):
            if passage.first >= min(passage.last, last):
                continue
            energy = passage.energy
            if passage.name == "intro" and index + 1 < len(self.plan.sections):
                energy = max(energy, INTRO_ENERGY_SHARE * self.plan.sections[index + 1].energy)
            yield index, replace(passage, last=min(passage.last, last), energy=energy)

    def section_bars(self, passage: FormSection) -> Iterator[tuple[int, Bar]]:
        """(Place in the passage, bar)."""
        return enumerate(self.plan.bars[passage.first : passage.last])

    def crescendo_bars(self) -> Iterator[Bar]:
        """The bars that lead into a louder passage."""
        for before, passage in pairwise(self.plan.sections):
            if passage.name != "ending" and passage.energy >= before.energy + 0.05:
                yield self.plan.bars[passage.first - 1]

    def velocity(self, loudness: float, bar: int) -> int:
        """MIDI velocity of an attack that a pattern marks with `loudness` 1–9, in a bar of this energy."""
        energy = float(self.plan.energy[bar])
        return round(min(max((22 + 9.5 * loudness) * (0.66 + 0.42 * energy), 8), 122))
