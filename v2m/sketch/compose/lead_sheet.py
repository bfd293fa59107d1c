"""The lead sheet (plan, style, key and chords by beat), and the notes and parts written over it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import NamedTuple

from v2m.sketch.compose.harmony import Chord, ChordSpan, Key
from v2m.sketch.plan.planner import Bar, FormSection, Hit, Plan
from v2m.sketch.style import Style

INTRO_ENERGY_SHARE = 0.75  # of the next section's energy, which an intro has at least
CHORD_SPREAD_BEATS = 0.12  # from the first to the last note of a strummed or broken chord
ACTIVITY_RANGE = 1.2  # of energy, by which figures differ between the stillest and the liveliest beats
MIN_DIVIDED_BEATS = 4  # of a bar whose halves have figures of their own
CRESCENDO_RISE = 0.05  # of energy, from which the bar before a section is a crescendo


def rng_for(seed: str, purpose: str) -> Random:
    """Return the random generator for one purpose, independent of others, the same in every process.

    `seed` and `purpose` are both part of the seed: another `purpose` label gives other music.
    """
    return Random(f"{seed} {purpose}")  # noqa: S311 (nothing here is a secret)


class Note(NamedTuple):
    """A note; `beat` and `length` in beats, `pitch` a MIDI key or drum, `velocity` 1–127."""

    beat: float
    length: float
    pitch: int
    velocity: int


@dataclass
class Part:
    """The notes of one instrument. `expression`: (beat, 0–1) points of its controller. `pan` −1 to 1.

    `program` is a General MIDI program, or a kit's number where `is_drums`.
    """

    name: str
    stem: str
    program: int
    is_drums: bool = False
    level_db: float = 0.0
    pan: float = 0.0
    notes: list[Note] = field(default_factory=list)
    expression: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class LeadSheet:
    """The harmony of a piece: `spans` follow each other without a gap over all bars of `plan`."""

    plan: Plan
    style: Style
    key: Key
    spans: tuple[ChordSpan, ...]

    @cached_property
    def _span_starts(self) -> list[float]:
        return [span.start for span in self.spans]

    @cached_property
    def hits(self) -> dict[float, Hit]:
        """The strongest cut or moment at each written beat, or fraction off it, that meets one."""
        hits = (*self.plan.hits, *self.plan.moments)
        return {hit.beat: hit for hit in sorted(hits, key=lambda hit: hit.strength)}

    @cached_property
    def _hit_shifts(self) -> tuple[list[float], list[float]]:
        """Written beats of the hits in order, and the beats by which their notes are played later."""
        beats = sorted(self.hits)
        played = self.plan.tempo_map.time_to_beat([self.hits[beat].time + self.hits[beat].offset for beat in beats])
        return beats, [float(p) - self.style.swing_beat(beat) for p, beat in zip(played, beats, strict=True)]

    def hit_shift(self, beat: float) -> float:
        """Return the beats by which a note written at `beat` is played later because a cut is there, mostly 0."""
        beats, shifts = self._hit_shifts
        index = bisect_right(beats, beat + 1e-6) - 1
        return shifts[index] if index >= 0 and beat - beats[index] < CHORD_SPREAD_BEATS else 0.0

    def activity_at(self, beat: float) -> float:
        """Return the activity 0–1 of the picture in the beat that contains `beat`."""
        return float(self.plan.activity[min(int(beat), len(self.plan.activity) - 1)])

    @cached_property
    def downbeats(self) -> frozenset[int]:
        return frozenset(bar.start for bar in self.plan.bars)

    @property
    def last_bar(self) -> Bar:
        """The bar of the final chord."""
        return self.plan.bars[-1]

    @cached_property
    def end_beat(self) -> float:
        """Beat at which the file ends."""
        return float(self.plan.tempo_map.time_to_beat(self.plan.duration))

    def span_index_at(self, beat: float) -> int:
        return max(0, bisect_right(self._span_starts, beat + 1e-6) - 1)

    def spans_in_bars(self, first: int, last: int) -> tuple[ChordSpan, ...]:
        """Return the chord spans of the bars `first` ≤ bar < `last`, which exclude the last bar of the piece."""
        bars = self.plan.bars
        return self.spans[self.span_index_at(bars[first].start) : self.span_index_at(bars[last].start)]

    def next_span(self, span: ChordSpan) -> ChordSpan:
        """Return the chord span after `span`; the last one is followed by itself."""
        return self.spans[min(self.span_index_at(span.start) + 1, len(self.spans) - 1)]

    def chord_at(self, beat: float) -> Chord:
        return self.spans[self.span_index_at(beat)].chord

    def sections(self) -> Iterator[tuple[int, FormSection]]:
        """Yield (index, section) without the final chord's bar and without sections that this leaves empty.

        An intro gets more energy than was measured, so that its instruments lead up to the next section.
        """
        last = len(self.plan.bars) - 1
        for index, section in enumerate(self.plan.sections):
            if section.first >= min(section.last, last):
                continue
            energy = section.energy
            if section.name == "intro" and index + 1 < len(self.plan.sections):
                energy = max(energy, INTRO_ENERGY_SHARE * self.plan.sections[index + 1].energy)
            yield index, replace(section, last=min(section.last, last), energy=energy)

    def section_bars(self, section: FormSection) -> Iterator[tuple[int, Bar]]:
        """Yield (position in the section, bar)."""
        return enumerate(self.plan.bars[section.first : section.last])

    def crescendo_bars(self) -> Iterator[Bar]:
        """Yield the bars that lead into a louder section."""
        for previous, section in pairwise(self.plan.sections):
            if section.name != "ending" and section.energy >= previous.energy + CRESCENDO_RISE:
                yield self.plan.bars[section.first - 1]

    def bar_parts(self, section: FormSection, number: int) -> Iterator[tuple[int, int, float]]:
        """Yield (first beat, last beat, energy 0–1) of the halves of bar `number`.

        A short bar is not divided. The energy chooses figures; it comes from section, bar, and the motion of the half.
        """
        bar = self.plan.bars[number]
        middle = (bar.beats + 1) // 2 if bar.beats >= MIN_DIVIDED_BEATS else bar.beats
        for first, last in ((0, middle), (middle, bar.beats)):
            if first < last:
                activity = sum(self.activity_at(bar.start + beat) for beat in range(first, last)) / (last - first)
                energy = (section.energy + float(self.plan.energy[number])) / 2 + ACTIVITY_RANGE * (activity - 0.5)
                yield first, last, min(max(energy, 0.0), 1.0)

    def velocity(self, loudness: float, bar: int) -> int:
        """Return the MIDI velocity of a pattern's `loudness` 1–9 at the energy of bar number `bar`."""
        energy = float(self.plan.energy[bar])
        return round(min(max((22 + 9.5 * loudness) * (0.66 + 0.42 * energy), 8), 122))
