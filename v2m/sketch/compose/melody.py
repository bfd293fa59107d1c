"""Lead and answering melody: motifs set on the harmony, phrase by phrase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from v2m.sketch.compose import motif as motif_ops
from v2m.sketch.compose.harmony import Chord
from v2m.sketch.compose.lead_sheet import LeadSheet, Note
from v2m.sketch.compose.motif import Motif, MotifBar
from v2m.sketch.plan.planner import Bar, FormSection
from v2m.sketch.style import Layer

MAX_LEAP_STEPS = 5  # a sixth
AWKWARD_INTERVALS = {6, 10, 11}  # semitones: tritone and sevenths, which are hard to sing
HIGH_ENERGY, LOW_ENERGY = 0.8, 0.25  # above, the lead is set higher; below, motifs are thinned
ACCOMPANIED_ENERGY = 0.6  # above it the answer adds guide tones to the lead


@dataclass
class MelodyLine:
    """A voice under construction, with the last scale step and leap that keep it singable."""

    sheet: LeadSheet
    low: int
    high: int
    notes: list[Note] = field(default_factory=list)
    step: int | None = None
    leap: int = 0

    def add_tones(self, tones: MotifBar, bar: Bar, number: int, anchor: int) -> None:
        """Add `tones` in `bar` (bar number `number`), their steps counted from scale step `anchor`."""
        for index, tone in enumerate(tones):
            if tone.onset >= bar.beats:
                break
            end = min(tone.onset + tone.length, bar.beats)
            if index + 1 == len(tones) and tone.onset + tone.length >= self.sheet.style.beats_per_bar:
                end = bar.beats  # a last tone held to the end of a regular bar fills a longer one
            beat = bar.start + tone.onset
            is_strong = tone.onset in {0, bar.beats // 2} or end - tone.onset >= 1
            target = anchor + tone.step
            motion = 0 if self.step is None else target - self.step
            if index:
                motion = tone.step - tones[index - 1].step
            step = self.choose_step(target, motion, self.sheet.chord_at(beat), is_strong)
            self.add_note(beat, end - tone.onset, step, self.sheet.velocity(tone.loudness, number))

    def choose_step(self, target: int, motion: int, chord: Chord, is_strong: bool) -> int:
        """Return a singable step near `target`, within the register.

        A strong tone is a chord tone, a leap is small enough and followed by a step back, and awkward intervals are
        avoided. `motion`: the motif's interval to this tone; where it is not 0, the line does not repeat a step.
        """
        key, previous = self.sheet.key, self.step
        low, high = key.nearest_step(self.low), key.nearest_step(self.high)

        def next_step(step: int, direction: int) -> int:
            candidates = range(step + direction, step + 8 * direction, direction)
            return next(step for step in candidates if not is_strong or step % 7 in chord.degrees)

        step = target
        if previous is not None:
            step = min(max(step, previous - MAX_LEAP_STEPS), previous + MAX_LEAP_STEPS)
            if abs(self.leap) >= 3 and (step - previous) * self.leap > 0:
                step = previous - (1 if self.leap > 0 else -1)
        step = min(max(step, low), high)
        if is_strong:
            step = nearest_chord_step(step, chord, previous)
        if previous is not None and step == previous and motion:
            may_rise = (motion > 0 and step < high) or step <= low  # the register's limits turn the motion round
            step = next_step(step, 1 if may_rise else -1)
        if previous is not None and abs(key.pitch(step, chord) - self.notes[-1].pitch) in AWKWARD_INTERVALS:
            step = next_step(step, 1 if previous > step else -1)
        return step

    def add_note(self, beat: float, length: float, step: int, velocity: int) -> None:
        """Add one note, ended early where the harmony leaves it dissonant."""
        pitch = self.sheet.key.pitch(step, self.sheet.chord_at(beat))
        self.notes.append(Note(beat, self.consonant_length(beat, length, pitch), pitch, velocity))
        self.leap = 0 if self.step is None else step - self.step
        self.step = step

    def consonant_length(self, beat: float, length: float, pitch: int) -> float:
        """Return `length`, cut short where the harmony changes to a chord without the tone."""
        spans = self.sheet.spans
        for span in spans[self.sheet.span_index_at(beat) + 1 : self.sheet.span_index_at(beat + length - 1e-5) + 1]:
            if pitch % 12 not in span.chord.pitch_classes:
                return span.start - beat
        return length


def nearest_chord_step(step: int, chord: Chord, previous: int | None) -> int:
    """Return the chord's scale step nearest to `step`; of two as near, the one nearer to `previous`."""
    choices = [step + shift for shift in range(-3, 4) if (step + shift) % 7 in chord.degrees]
    reference = step if previous is None else previous
    return min(choices, key=lambda choice: (abs(choice - step), abs(choice - reference), choice))


def two_bar_units(section: FormSection) -> list[tuple[int, int]]:
    """Return the two-bar units of a section as (first bar, bars); an odd bar is last."""
    return [(first, min(2, section.last - first)) for first in range(section.first, section.last, 2)]


def phrase_roles(count: int, rest_probability: float, rng: Random) -> Iterator[str]:
    """Yield a role for each of `count` units: statement, sequence or rest, fragmentation, close."""
    for index in range(count):
        if index == count - 1:
            yield "close" if count > 1 else "state"
        elif index % 4 == 0:
            yield "state" if index == 0 else rng.choice(("state", "ornament", "invert"))
        elif index % 4 == 1:
            yield "rest" if rng.random() < rest_probability else "sequence"
        elif index % 4 == 2:
            yield rng.choice(("fragment", "ornament", "rest")) if rng.random() < 0.5 + rest_probability else "state"
        else:
            yield "close"


def develop_motif(motif: Motif, role: str, section: FormSection, beats_per_bar: int, rng: Random) -> Motif:
    """Return the motif varied by the unit's role, ornamented in returns, thinned at low energy."""
    if role == "invert":
        motif = motif_ops.invert(motif)
    elif role == "fragment":
        motif = motif_ops.fragment(motif)
    elif role == "sequence":
        motif = motif_ops.transpose(motif, rng.choice((-2, -1, 1, 2)))
    if section.name == "ending":
        return motif_ops.augment(motif, beats_per_bar)
    if section.energy < LOW_ENERGY:
        return motif_ops.thin(motif)
    if role == "ornament" or (section.variant > 0 and role in {"state", "sequence"}):
        return motif_ops.ornament(motif, rng)
    return motif


def compose_lead(
    sheet: LeadSheet, themes: Mapping[str, Motif], low: int, high: int, rng: Random, *, plays_intro: bool = False
) -> tuple[list[Note], list[int]]:
    """Compose the lead, and list the first bars of the units that it leaves to the answer.

    `plays_intro`: throughout an intro, not only at its end.
    """
    line = MelodyLine(sheet, low, high)
    rests: list[int] = []
    for _, section in sheet.sections():
        motif = themes.get(section.name, next(iter(themes.values())))
        lift = 3 if section.variant > 1 or section.energy > HIGH_ENERGY else 0
        units = two_bar_units(section)
        roles = list(phrase_roles(len(units), sheet.style.rest_probability, rng))
        if section.name == "intro" and not plays_intro:  # the lead enters with a fragment just before its theme
            roles = ["rest"] * (len(units) - 1) + (["fragment"] if len(units) > 1 else ["rest"])
        line.leap = 0
        for (first, count), role in zip(units, roles, strict=True):
            if role == "rest":
                rests.append(first)
                continue
            center = sheet.key.nearest_step((low + high) / 2 - 2) + lift
            anchor = nearest_chord_step(center, sheet.chord_at(sheet.plan.bars[first].start), None)
            unit = develop_motif(motif, role, section, sheet.style.beats_per_bar, rng)
            is_closing = role == "close" or (role == "state" and count == 1)
            for index in range(count):
                number = first + index
                if is_closing and index == count - 1:
                    _add_cadence(line, unit, number, anchor)
                else:
                    line.add_tones(unit[index], sheet.plan.bars[number], number, anchor)
    _add_final_note(line)
    return line.notes, rests


def compose_answer(
    sheet: LeadSheet, themes: Mapping[str, Motif], rests: list[int], layer: Layer, rng: Random
) -> list[Note]:
    """Compose the second voice: answers in the lead's `rests`, guide tones in returns and loud sections."""
    line = MelodyLine(sheet, layer.low, layer.high)
    for _, section in sheet.sections():
        if section.energy < layer.min_energy or section.name == "intro":
            continue
        motif = themes.get(section.name, next(iter(themes.values())))
        adds_guide_tones = section.variant > 0 or section.energy > ACCOMPANIED_ENERGY
        for first, count in two_bar_units(section):
            center = sheet.key.nearest_step((layer.low + layer.high) / 2)
            anchor = nearest_chord_step(center, sheet.chord_at(sheet.plan.bars[first].start), None)
            if first in rests:
                echo = motif_ops.invert(motif) if rng.random() < 0.4 else motif
                for index in range(count):
                    line.add_tones(echo[index], sheet.plan.bars[first + index], first + index, anchor)
            elif adds_guide_tones:
                for number in range(first, first + count):
                    _add_guide_tones(line, number)
    return line.notes


def _add_cadence(line: MelodyLine, unit: Motif, number: int, anchor: int) -> None:
    """Add the end of a phrase: at most two short tones into a long chord tone, then a short rest."""
    sheet, bar = line.sheet, line.sheet.plan.bars[number]
    half = max(1, bar.beats // 2)
    approach = tuple(tone for tone in unit[0] if tone.onset < half)[:2] if bar.beats > 2 else ()
    line.add_tones(tuple(t._replace(length=min(t.length, half - t.onset)) for t in approach), bar, number, anchor)
    onset = half if approach else 0
    chord = sheet.chord_at(bar.start + onset)
    previous = anchor if line.step is None else line.step
    step = nearest_chord_step(previous - 1, chord, previous)
    if step == previous and approach:
        step = nearest_chord_step(previous - 3, chord, previous)
    line.add_note(bar.start + onset, max(1.0, bar.beats - onset - 0.5), step, sheet.velocity(6, number))


def _add_guide_tones(line: MelodyLine, number: int) -> None:
    """Add one long tone per chord, on the third or seventh where there is one, with little motion."""
    sheet = line.sheet
    for span in sheet.spans_in_bars(number, number + 1):
        previous = line.step if line.step is not None else sheet.key.nearest_step((line.low + line.high) / 2)
        guides = span.chord.degrees[1:2] + span.chord.degrees[3:4] or span.chord.degrees
        step = min(
            (previous + shift for shift in (0, -1, 1, -2, 2, -3, 3) if (previous + shift) % 7 in guides),
            key=lambda s: abs(s - previous),
        )
        if sheet.key.pitch(step) > line.high:
            step -= 7
        elif sheet.key.pitch(step) < line.low:
            step += 7
        line.add_note(span.start, span.beats, step, sheet.velocity(4.5, number))


def _add_final_note(line: MelodyLine) -> None:
    """Add the last note, on the tonic or the third of the last chord, whichever is nearer."""
    sheet = line.sheet
    chord, start = sheet.spans[-1].chord, sheet.last_bar.start
    previous = line.step if line.step is not None else sheet.key.nearest_step((line.low + line.high) / 2)
    steps = [previous + shift for shift in range(-4, 5) if (previous + shift) % 7 in chord.degrees[:2]]
    in_register = [step for step in steps if line.low <= sheet.key.pitch(step, chord) <= line.high] or steps
    step = min(in_register, key=lambda choice: (abs(choice - previous), choice))
    line.add_note(start, sheet.end_beat - start, step, sheet.velocity(6, len(sheet.plan.bars) - 1))
