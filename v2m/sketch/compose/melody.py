"""The lead and its answer: motifs set on the harmony, phrase by phrase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from v2m.sketch.compose import motif as motifs
from v2m.sketch.compose.chords import Chord
from v2m.sketch.compose.lead_sheet import LeadSheet, Note
from v2m.sketch.compose.motif import Motif, MotifBar
from v2m.sketch.plan.plan import Bar, FormSection
from v2m.sketch.style import Layer

MAX_LEAP_STEPS = 5  # scale steps: a sixth
AWKWARD_INTERVALS = {6, 10, 11}  # semitones: tritone and sevenths, which are hard to sing


@dataclass
class MelodyLine:
    """A voice in the making: it remembers where it is, so that leaps stay singable and are filled."""

    sheet: LeadSheet
    low: int
    high: int
    notes: list[Note] = field(default_factory=list)
    step: int | None = None
    leap: int = 0

    def add_tones(self, tones: MotifBar, bar: Bar, number: int, anchor: int) -> None:
        """Sets the tones of `bar` in bar number `number`, its steps counted from scale step `anchor`."""
        for place, tone in enumerate(tones):
            if tone.onset >= bar.beats:
                break
            end = min(tone.onset + tone.length, bar.beats)
            if place + 1 == len(tones) and tone.onset + tone.length >= self.sheet.style.beats_per_bar:
                end = bar.beats  # a longer bar is sung out
            beat = bar.start + tone.onset
            strong = tone.onset in {0, bar.beats // 2} or end - tone.onset >= 1
            wish = anchor + tone.step
            heading = tone.step - tones[place - 1].step if place else wish - (wish if self.step is None else self.step)
            step = self.choose_step(wish, heading, self.sheet.chord_at(beat), strong)
            self.add_note(beat, end - tone.onset, step, self.sheet.velocity(tone.loudness, number))

    def choose_step(self, wish: int, heading: int, chord: Chord, strong: bool) -> int:
        """Where a singer would take step `wish`: a chord tone where it is exposed, a leap filled, all within range.

        `heading`: the motif's own move to this tone; where it moves, the line does not stand still.
        """
        key, before = self.sheet.key, self.step
        low, high = key.nearest_step(self.low), key.nearest_step(self.high)
        step = wish
        if before is not None:
            step = min(max(step, before - MAX_LEAP_STEPS), before + MAX_LEAP_STEPS)
            if abs(self.leap) >= 3 and (step - before) * self.leap > 0:
                step = before - (1 if self.leap > 0 else -1)
        step = min(max(step, low), high)
        if strong:
            step = nearest_chord_step(step, chord, before)
        if before is not None and step == before and heading:
            way = 1 if (heading > 0 and step < high) or step <= low else -1
            step = next(s for s in range(step + way, step + 8 * way, way) if not strong or s % 7 in chord.degrees)
        if before is not None and abs(key.pitch(step, chord) - self.notes[-1].pitch) in AWKWARD_INTERVALS:
            way = 1 if before > step else -1
            step = next(s for s in range(step + way, step + 8 * way, way) if not strong or s % 7 in chord.degrees)
        return step

    def add_note(self, beat: float, length: float, step: int, velocity: int) -> None:
        pitch = self.sheet.key.pitch(step, self.sheet.chord_at(beat))
        self.notes.append(Note(beat, self.consonant_length(beat, length, pitch), pitch, velocity))
        self.leap = 0 if self.step is None else step - self.step
        self.step = step

    def consonant_length(self, beat: float, length: float, pitch: int) -> float:
        """`length`, cut short where the harmony changes to a chord that the tone does not belong to."""
        spans = self.sheet.spans
        for span in spans[self.sheet.span_index_at(beat) + 1 : self.sheet.span_index_at(beat + length - 1e-5) + 1]:
            if pitch % 12 not in span.chord.pitch_classes:
                return span.start - beat
        return length


def nearest_chord_step(step: int, chord: Chord, before: int | None) -> int:
    """The scale step nearest to `step` that `chord` is spelled on; of two as near, the one nearer to `before`."""
    around = [step + shift for shift in range(-3, 4) if (step + shift) % 7 in chord.degrees]
    return min(
        around, key=lambda choice: (abs(choice - step), abs(choice - (step if before is None else before)), choice)
    )


def two_bar_units(passage: FormSection) -> list[tuple[int, int]]:
    """The two-bar units of a passage as (first bar, bars); an odd bar stands at the end."""
    return [(first, min(2, passage.last - first)) for first in range(passage.first, passage.last, 2)]


def phrase_roles(count: int, silences: float, rng: Random) -> Iterator[str]:
    """What becomes of each unit. Sentences of four: the idea, its sequel or an answer, a drive, a close."""
    for place in range(count):
        left = count - place
        if left == 1:
            yield "close" if count > 1 else "state"
            continue
        role = place % 4
        if role == 0:
            yield "state" if place == 0 else rng.choice(("state", "ornament", "invert"))
        elif role == 1:
            yield "rest" if rng.random() < silences else "sequence"
        elif role == 2:
            yield rng.choice(("fragment", "ornament", "rest")) if rng.random() < 0.5 + silences else "state"
        else:
            yield "close"


def develop_motif(idea: Motif, role: str, passage: FormSection, meter: int, rng: Random) -> Motif:
    """The motif as this unit needs it: varied by its role, busier in returns and with energy, sparser without."""
    if role == "invert":
        idea = motifs.invert(idea)
    elif role == "fragment":
        idea = motifs.fragment(idea)
    elif role == "sequence":
        idea = motifs.transpose(idea, rng.choice((-2, -1, 1, 2)))
    if passage.name == "ending":
        return motifs.augment(idea, meter)
    if passage.energy < 0.25:
        return motifs.thin(idea)
    if role == "ornament" or (passage.variant > 0 and role in {"state", "sequence"}):
        return motifs.ornament(idea, rng)
    return idea


def compose_lead(
    sheet: LeadSheet, ideas: Mapping[str, Motif], low: int, high: int, rng: Random, *, plays_intro: bool = False
) -> tuple[list[Note], list[int]]:
    """The lead of the whole piece, and the first bars of the units that it leaves to the answer.

    `early`: it plays throughout an intro, and not only towards its end.
    """
    line = MelodyLine(sheet, low, high)
    silent: list[int] = []
    for _, passage in sheet.sections():
        idea = ideas.get(passage.name, next(iter(ideas.values())))
        lift = 3 if passage.variant > 1 or passage.energy > 0.8 else 0
        spans = two_bar_units(passage)
        plan = list(phrase_roles(len(spans), sheet.style.rest_probability, rng))
        if passage.name == "intro" and not plays_intro:  # the lead enters with the head of its theme, just before it
            plan = ["rest"] * (len(spans) - 1) + (["fragment"] if len(spans) > 1 else ["rest"])
        line.leap = 0
        for (first, count), how in zip(spans, plan, strict=True):
            if how == "rest":
                silent.append(first)
                continue
            anchor = nearest_chord_step(
                sheet.key.nearest_step((low + high) / 2 - 2) + lift, sheet.chord_at(sheet.plan.bars[first].start), None
            )
            unit = develop_motif(idea, how, passage, sheet.style.beats_per_bar, rng)
            closing = how == "close" or (how == "state" and count == 1)
            for place in range(count):
                number = first + place
                if closing and place == count - 1:
                    _add_cadence(line, unit, number, anchor)
                else:
                    line.add_tones(unit[place], sheet.plan.bars[number], number, anchor)
    _add_final_note(line)
    return line.notes, silent


def compose_answer(
    sheet: LeadSheet, ideas: Mapping[str, Motif], silent: list[int], layer: Layer, rng: Random
) -> list[Note]:
    """The other voice: it answers where the lead rests, and sings long tones under a theme that returns."""
    line = MelodyLine(sheet, layer.low, layer.high)
    for _, passage in sheet.sections():
        if passage.energy < layer.min_energy or passage.name == "intro":
            continue
        idea = ideas.get(passage.name, next(iter(ideas.values())))
        under = passage.variant > 0 or passage.energy > 0.6
        for first, count in two_bar_units(passage):
            anchor = nearest_chord_step(
                sheet.key.nearest_step((layer.low + layer.high) / 2), sheet.chord_at(sheet.plan.bars[first].start), None
            )
            if first in silent:
                echo = motifs.invert(idea) if rng.random() < 0.4 else idea
                for place in range(count):
                    line.add_tones(echo[place], sheet.plan.bars[first + place], first + place, anchor)
            elif under:
                for number in range(first, first + count):
                    _add_guide_tones(line, number)
    return line.notes


def _add_cadence(line: MelodyLine, unit: Motif, number: int, anchor: int) -> None:
    """The end of a phrase: at most two short tones that lead to a long chord tone, then breath."""
    sheet, bar = line.sheet, line.sheet.plan.bars[number]
    half = max(1, bar.beats // 2)
    run_up = tuple(tone for tone in unit[0] if tone.onset < half)[:2] if bar.beats > 2 else ()
    line.add_tones(tuple(t._replace(length=min(t.length, half - t.onset)) for t in run_up), bar, number, anchor)
    onset = half if run_up else 0
    chord = sheet.chord_at(bar.start + onset)
    before = anchor if line.step is None else line.step
    close = nearest_chord_step(before - 1, chord, before)
    if close == before and run_up:
        close = nearest_chord_step(before - 3, chord, before)
    line.add_note(bar.start + onset, max(1.0, bar.beats - onset - 0.5), close, sheet.velocity(6, number))


def _add_guide_tones(line: MelodyLine, number: int) -> None:
    """One long tone per chord, moving as little as it can, on the third or seventh where there is one."""
    sheet = line.sheet
    for span in sheet.spans_in_bars(number, number + 1):
        before = line.step if line.step is not None else sheet.key.nearest_step((line.low + line.high) / 2)
        guides = span.chord.degrees[1:2] + span.chord.degrees[3:4] or span.chord.degrees
        step = min(
            (before + shift for shift in (0, -1, 1, -2, 2, -3, 3) if (before + shift) % 7 in guides),
            key=lambda s: abs(s - before),
        )
        if sheet.key.pitch(step) > line.high:
            step -= 7
        elif sheet.key.pitch(step) < line.low:
            step += 7
        line.add_note(span.start, span.beats, step, sheet.velocity(4.5, number))


def _add_final_note(line: MelodyLine) -> None:
    """The last note, on the tonic or the third of the last chord, whichever is nearer."""
    sheet = line.sheet
    chord = sheet.spans[-1].chord
    before = line.step if line.step is not None else sheet.key.nearest_step((line.low + line.high) / 2)
    closing = [before + shift for shift in range(-4, 5) if (before + shift) % 7 in chord.degrees[:2]]
    inside = [step for step in closing if line.low <= sheet.key.pitch(step, chord) <= line.high] or closing
    step = min(inside, key=lambda choice: (abs(choice - before), choice))
    line.add_note(
        sheet.last_bar.start, sheet.end_beat - sheet.last_bar.start, step, sheet.velocity(6, len(sheet.plan.bars) - 1)
    )
