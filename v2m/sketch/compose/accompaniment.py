"""Accompaniment: pads, chords, arpeggios and bass, from the lead sheet and a layer of the style.

Sections are played one at a time; the last bar of the piece is in none of them (see `play_final_chord`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

from v2m.sketch.compose.harmony import ChordSpan, Voicing, choose_voicing
from v2m.sketch.compose.lead_sheet import LeadSheet, Note
from v2m.sketch.instruments import fit_octave
from v2m.sketch.plan.planner import Bar, FormSection
from v2m.sketch.style import Attack, Figure, Layer, parse_rhythm, pattern_index

STRUM_DELAY_BEATS = 0.022  # between the strings of a strum
FINAL_SPREAD_BEATS = 0.06  # between the tones of a broken final chord


@dataclass
class Accompanist:
    """The player of one layer, with the last voicing and bass root that it moves on from.

    `occupied`: index of a chord span → pitches that melodies and earlier players hold there; own voicings are added.
    `variation`: offset of its figures from those that the energy selects.
    """

    sheet: LeadSheet
    layer: Layer
    rng: Random
    occupied: dict[int, set[int]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    last_voicing: Voicing | None = None
    last_root: int | None = None
    variation: int = 0

    def bar_attacks(self, section: FormSection, position: int, bar: Bar) -> Iterator[tuple[Figure, Attack]]:
        """Yield the attacks of each part of `bar`, the `position`-th of `section`, with their figure."""
        figures = self.layer.figures
        for first, last, energy in self.sheet.bar_parts(section, section.first + position):
            figure = figures[pattern_index(len(figures), energy, self.variation)]
            for attack in parse_rhythm(figure.rhythm, self.sheet.style.beats_per_bar, position, bar.beats):
                if first <= attack.onset < last:
                    yield figure, attack

    def voice_chord(self, span: ChordSpan) -> Voicing:
        """Voice the chord of `span` close to the last one and clear of the other players."""
        layer = self.layer
        if layer.kind == "power":
            root = fit_octave(span.chord.root, layer.low, layer.low + 11)
            return root, root + 7, root + 12
        occupied = self.occupied.setdefault(self.sheet.span_index_at(span.start), set())
        self.last_voicing = choose_voicing(span.chord, self.last_voicing, layer, self.sheet.style, occupied)
        occupied.update(self.last_voicing)
        return self.last_voicing

    def play_section(self, section: FormSection, first_bar: int) -> None:
        """Play `section` from bar `first_bar` on."""
        methods = {
            "pad": self.play_pad,
            "arp": self.play_arpeggio,
            "bass": self.play_bass,
            "walk": self.play_walking_bass,
        }
        play = methods.get(self.layer.kind, self.play_chords)
        play(replace(section, first=max(first_bar, section.first)))

    def play_pad(self, section: FormSection) -> None:
        """Play held chords; a tone that is also in the next chord is tied over."""
        sounding: dict[int, Note] = {}
        for span in self.sheet.spans_in_bars(section.first, section.last):
            chord = self.voice_chord(span)
            velocity = self.sheet.velocity(5, span.bar)
            tied = {pitch: sounding[pitch] for pitch in chord if pitch in sounding}
            self.notes += [note for pitch, note in sounding.items() if pitch not in tied]
            sounding = {
                pitch: tied[pitch]._replace(length=tied[pitch].length + span.beats)
                if pitch in tied
                else Note(span.start, span.beats, pitch, velocity)
                for pitch in chord
            }
        self.notes += sounding.values()

    def figure_attacks(self, section: FormSection) -> Iterator[tuple[int, Figure, Attack, float, Voicing]]:
        """Yield (bar, figure, attack, its beat, the voicing of the chord there) of the figures of `section`."""
        sheet = self.sheet
        for position, bar in sheet.section_bars(section):
            number = section.first + position
            voicings = [(span.start, self.voice_chord(span)) for span in sheet.spans_in_bars(number, number + 1)]
            for figure, attack in self.bar_attacks(section, position, bar):
                beat = bar.start + attack.onset
                current = next(voicing for start, voicing in reversed(voicings) if start <= beat + 1e-6)
                yield number, figure, attack, beat, current

    def play_chords(self, section: FormSection) -> None:
        """Play chords in the rhythm of the figure, together or strummed."""
        strum = self.layer.kind == "strum"
        for index, (number, _, attack, beat, chord) in enumerate(self.figure_attacks(section)):
            velocity = self.sheet.velocity(attack.loudness, number)
            length = attack.length * self.layer.gate
            up_stroke = chord[::-1][: max(2, len(chord) - 1)]  # after a full down-stroke, lighter
            strings = up_stroke if strum and index % 2 else chord
            for rank, pitch in enumerate(strings):
                delay = rank * STRUM_DELAY_BEATS if strum else 0.0
                self.notes.append(Note(beat + delay, length - delay, pitch, max(1, velocity - 2 * rank * strum)))

    def play_arpeggio(self, section: FormSection) -> None:
        """Play the tones of the voicing one after another; tone numbers beyond it go on in the next octave."""
        count = 0
        for number, figure, attack, beat, chord in self.figure_attacks(section):
            order = figure.order
            count = 0 if attack.onset == 0 else count + 1
            octave, tone = divmod(int(order[count % len(order)]), len(chord))
            pitch = fit_octave(chord[tone] + 12 * octave, self.layer.low, self.layer.high)
            velocity = self.sheet.velocity(attack.loudness, number)
            self.notes.append(Note(beat, attack.length * self.layer.gate, pitch, velocity))

    def play_bass(self, section: FormSection) -> None:
        """Play roots, fifths and octaves in the rhythm of the figure, with a step into the next chord."""
        layer = self.layer
        for position, bar in self.sheet.section_bars(section):
            number = section.first + position
            attacks = {attack.onset: (figure, attack) for figure, attack in self.bar_attacks(section, position, bar)}
            spans = self.sheet.spans_in_bars(number, number + 1) if attacks else ()
            # a new chord gets its root even where the figure rests
            changes = {span.start - bar.start for span in spans}
            onsets = sorted(attacks.keys() | changes)
            for index, (onset, following) in enumerate(pairwise([*onsets, float(bar.beats)])):
                figure, attack = attacks.get(onset, (self.layer.figures[0], Attack(onset, following - onset, 7)))
                span = self.sheet.spans[self.sheet.span_index_at(bar.start + onset)]
                root = self.bass_root(span)
                degree = figure.order[index % len(figure.order)]
                pitch = root if onset in changes else self.bass_pitch(degree, span, root)
                length = min(attack.length, following - onset) * layer.gate
                self.notes.append(Note(bar.start + onset, length, pitch, self.sheet.velocity(attack.loudness, number)))

    def bass_pitch(self, degree: str, span: ChordSpan, root: int) -> int:
        """Return the pitch of a figure's `degree` (see `Figure`) above the bass note `root`."""
        chord, layer = span.chord, self.layer
        if degree == "a":
            target = fit_octave(self.sheet.next_span(span).chord.bass, root - 6, root + 6)
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
        """Return the chord's bass in the octave that moves least, in the lower part of the register."""
        low, high = self.layer.low, self.layer.low + 14
        choices = [pitch for pitch in range(low, high + 1) if pitch % 12 == span.chord.bass]
        previous = self.last_root if self.last_root is not None else low + 6
        self.last_root = min(choices, key=lambda pitch: (abs(pitch - previous) + 0.2 * abs(pitch - low - 5), pitch))
        return self.last_root

    def play_walking_bass(self, section: FormSection) -> None:
        """Play a walking bass: the root of each chord, chord tones, and a semitone into the next root."""
        for span in self.sheet.spans_in_bars(section.first, section.last):
            root = self.bass_root(span)
            target = fit_octave(self.sheet.next_span(span).chord.bass, root - 6, root + 5)
            line = [root]
            tones = [p for p in range(self.layer.low, self.layer.high + 1) if p % 12 in span.chord.pitch_classes]
            for position in range(1, int(span.beats)):
                if position == int(span.beats) - 1:
                    side = 1 if line[-1] > target else -1
                    approach = target + (side if self.rng.random() < 0.7 else -side)
                    pitch = fit_octave(approach, self.layer.low, self.layer.high)
                else:
                    nearest = sorted((p for p in tones if p != line[-1]), key=lambda p: (abs(p - line[-1]), p))[:3]
                    pitch = self.rng.choice(nearest)
                line.append(pitch)
            for position, pitch in enumerate(line):
                velocity = self.sheet.velocity(7 if position % 2 == 0 else 6, span.bar)
                self.notes.append(Note(span.start + position, self.layer.gate, pitch, velocity))

    def play_final_chord(self) -> None:
        """Play the last chord, which rings until the file ends."""
        sheet, layer = self.sheet, self.layer
        span, bar = sheet.spans[-1], len(sheet.plan.bars) - 1
        velocity = sheet.velocity(7 if layer.stem != "pads" else 5, bar)
        pitches = (self.bass_root(span),) if layer.kind in {"bass", "walk"} else self.voice_chord(span)
        spread = FINAL_SPREAD_BEATS if layer.kind in {"arp", "strum"} else 0.0
        for rank, pitch in enumerate(pitches):
            length = sheet.end_beat - span.start - rank * spread
            self.notes.append(Note(span.start + rank * spread, length, pitch, velocity))
