"""The accompanists: pads, chords, arpeggios, bass. Each turns the lead sheet and its layer into notes.

A writer is called for one passage at a time; the last bar of the piece is not a passage (see `final`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

from v2m.sketch.compose.lead_sheet import ChordSpan, LeadSheet, Note
from v2m.sketch.compose.voicing import Voicing, choose_voicing
from v2m.sketch.instruments import fit_octave
from v2m.sketch.plan.plan import FormSection
from v2m.sketch.style import Attack, Figure, Layer, parse_rhythm, pattern_index

STRUM_DELAY_BEATS = 0.022  # beats between the strings of a strum


@dataclass
class Accompanist:
    """One layer at work, remembering its last voicing and the bass note it came from.

    `heard`: place of a span → the pitches that melodies and earlier players hold there; what this one voices is added.
    `turn`: places by which its figures are not those that the energy asks for.
    """

    sheet: LeadSheet
    layer: Layer
    rng: Random
    occupied: dict[int, set[int]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    last_voicing: Voicing | None = None
    last_root: int | None = None
    variation: int = 0

    def choose_figure(self, passage: FormSection) -> Figure:
        figures = self.layer.figures
        return figures[pattern_index(len(figures), passage.energy, self.variation)]

    def voice_chord(self, span: ChordSpan) -> Voicing:
        layer, style = self.layer, self.sheet.style
        if layer.kind == "power":
            root = fit_octave(span.chord.root, layer.low, layer.low + 11)
            return root, root + 7, root + 12
        others = self.occupied.setdefault(self.sheet.span_index_at(span.start), set())
        self.last_voicing = choose_voicing(
            span.chord,
            self.last_voicing,
            voices=layer.voices,
            low=layer.low,
            high=layer.high,
            bass=fit_octave(span.chord.bass, 33, 44),
            avoid_parallels=style.avoid_parallels,
            rootless=style.rootless_voicings,
            occupied=others,
        )
        others.update(self.last_voicing)
        return self.last_voicing

    def play_section(self, passage: FormSection, first_bar: int) -> None:
        """Plays `passage` from bar `since` on."""
        write = {
            "pad": self.play_pad,
            "arp": self.play_arpeggio,
            "bass": self.play_bass,
            "walk": self.play_walking_bass,
        }.get(self.layer.kind, self.play_chords)
        write(replace(passage, first=max(first_bar, passage.first)))

    def play_pad(self, passage: FormSection) -> None:
        """Held chords; a tone that stays in the next chord is tied over."""
        held: dict[int, Note] = {}
        for span in self.sheet.spans_in_bars(passage.first, passage.last):
            chord = self.voice_chord(span)
            velocity = self.sheet.velocity(5, span.bar)
            tied = {pitch: held[pitch] for pitch in chord if pitch in held}
            self.notes += [note for pitch, note in held.items() if pitch not in tied]
            held = {
                pitch: tied[pitch]._replace(length=tied[pitch].length + span.beats)
                if pitch in tied
                else Note(span.start, span.beats, pitch, velocity)
                for pitch in chord
            }
        self.notes += held.values()

    def figure_attacks(self, passage: FormSection) -> Iterator[tuple[int, Attack, float, Voicing]]:
        """(Bar number, attack, its beat, the voicing of the chord there) of the figure throughout `passage`."""
        figure, sheet = self.choose_figure(passage), self.sheet
        for place, bar in sheet.section_bars(passage):
            number = passage.first + place
            hands = [(span.start, self.voice_chord(span)) for span in sheet.spans_in_bars(number, number + 1)]
            for attack in parse_rhythm(figure.rhythm, sheet.style.beats_per_bar, place, bar.beats):
                beat = bar.start + attack.onset
                yield number, attack, beat, next(hand for start, hand in reversed(hands) if start <= beat + 1e-6)

    def play_chords(self, passage: FormSection) -> None:
        """Chords in the rhythm of the figure, together or strummed."""
        strum = self.layer.kind == "strum"
        for index, (number, attack, beat, chord) in enumerate(self.figure_attacks(passage)):
            velocity = self.sheet.velocity(attack.loudness, number)
            length = attack.length * self.layer.gate
            order = chord if index % 2 == 0 else chord[::-1][: max(2, len(chord) - 1)]  # down, then a lighter up
            for rank, pitch in enumerate(order if strum else chord):
                late = rank * STRUM_DELAY_BEATS if strum else 0.0
                self.notes.append(Note(beat + late, length - late, pitch, max(1, velocity - 2 * rank * strum)))

    def play_arpeggio(self, passage: FormSection) -> None:
        """The tones of the voicing one after another, octaves above it when the order asks for more than it has."""
        order = self.choose_figure(passage).order
        count = 0
        for number, attack, beat, chord in self.figure_attacks(passage):
            count = 0 if attack.onset == 0 else count + 1
            octave, tone = divmod(int(order[count % len(order)]), len(chord))
            pitch = fit_octave(chord[tone] + 12 * octave, self.layer.low, self.layer.high)
            velocity = self.sheet.velocity(attack.loudness, number)
            self.notes.append(Note(beat, attack.length * self.layer.gate, pitch, velocity))

    def play_bass(self, passage: FormSection) -> None:
        """Roots, fifths and octaves in the rhythm of the figure, and a step that leads into the next chord."""
        figure, layer = self.choose_figure(passage), self.layer
        for place, bar in self.sheet.section_bars(passage):
            number = passage.first + place
            found = {a.onset: a for a in parse_rhythm(figure.rhythm, self.sheet.style.beats_per_bar, place, bar.beats)}
            changes = (
                {span.start - bar.start for span in self.sheet.spans_in_bars(number, number + 1)} if found else set()
            )
            onsets = sorted(found.keys() | changes)
            for index, (onset, following) in enumerate(pairwise([*onsets, float(bar.beats)])):
                attack = found.get(onset, Attack(onset, following - onset, 7))
                span = self.sheet.spans[self.sheet.span_index_at(bar.start + onset)]
                root = self.bass_root(span)
                degree = figure.order[index % len(figure.order)]
                pitch = root if onset in changes else self.bass_pitch(degree, span, root)
                length = min(attack.length, following - onset) * layer.gate
                self.notes.append(Note(bar.start + onset, length, pitch, self.sheet.velocity(attack.loudness, number)))

    def bass_pitch(self, degree: str, span: ChordSpan, root: int) -> int:
        chord, layer = span.chord, self.layer
        if degree == "a":
            following = self.sheet.spans[min(self.sheet.span_index_at(span.start) + 1, len(self.sheet.spans) - 1)]
            target = fit_octave(following.chord.bass, root - 6, root + 6)
            if target == root:
                return fit_octave(chord.pitch_classes[2], root - 6, root + 7) if len(chord.pitch_classes) > 2 else root
            return fit_octave(target + (-1 if target > root else 1), layer.low, layer.high)
        if degree == "5":
            fifth = next((pc for pc in chord.pitch_classes if (pc - chord.root) % 12 in {6, 7}), chord.root)
            return fit_octave(fifth, *((root - 7, root + 4) if root - 7 >= layer.low else (root, root + 11)))
        if degree == "o":
            return root + 12 if root + 12 <= layer.high else root
        return fit_octave(chord.pitch_classes[1], root, root + 11) if degree == "3" else root

    def bass_root(self, span: ChordSpan) -> int:
        """The chord's bass in the octave that moves least, kept in the lower part of the register."""
        low, high = self.layer.low, self.layer.low + 14
        choices = [pitch for pitch in range(low, high + 1) if pitch % 12 == span.chord.bass]
        before = self.last_root if self.last_root is not None else low + 6
        self.last_root = min(choices, key=lambda pitch: (abs(pitch - before) + 0.2 * abs(pitch - low - 5), pitch))
        return self.last_root

    def play_walking_bass(self, passage: FormSection) -> None:
        """A walking bass: the root on each chord, chord tones on the way, a semitone or a step into the next root."""
        for span in self.sheet.spans_in_bars(passage.first, passage.last):
            index = self.sheet.span_index_at(span.start)
            following = self.sheet.spans[min(index + 1, len(self.sheet.spans) - 1)]
            root = self.bass_root(span)
            target = fit_octave(following.chord.bass, root - 6, root + 5)
            line = [root]
            tones = [p for p in range(self.layer.low, self.layer.high + 1) if p % 12 in span.chord.pitch_classes]
            for place in range(1, int(span.beats)):
                if place == int(span.beats) - 1:
                    side = 1 if line[-1] > target else -1
                    pitch = fit_octave(
                        target + (side if self.rng.random() < 0.7 else -side), self.layer.low, self.layer.high
                    )
                else:
                    near = sorted((p for p in tones if p != line[-1]), key=lambda p: (abs(p - line[-1]), p))[:3]
                    pitch = self.rng.choice(near)
                line.append(pitch)
            for place, pitch in enumerate(line):
                loud = 7 if place % 2 == 0 else 6
                self.notes.append(Note(span.start + place, self.layer.gate, pitch, self.sheet.velocity(loud, span.bar)))

    def play_final_chord(self) -> None:
        """The last chord, struck once and left to ring until the file ends."""
        sheet, layer = self.sheet, self.layer
        span, bar = sheet.spans[-1], len(sheet.plan.bars) - 1
        velocity = sheet.velocity(7 if layer.stem != "pads" else 5, bar)
        pitches = (self.bass_root(span),) if layer.kind in {"bass", "walk"} else self.voice_chord(span)
        spread = 0.06 if layer.kind in {"arp", "strum"} else 0.0
        for rank, pitch in enumerate(pitches):
            self.notes.append(
                Note(span.start + rank * spread, sheet.end_beat - span.start - rank * spread, pitch, velocity)
            )
