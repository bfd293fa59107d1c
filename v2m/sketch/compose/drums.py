"""The drummer, and the marks on the cuts: grooves with small variations, fills before a new passage, accents."""

from __future__ import annotations

from random import Random

from v2m.sketch.compose.chords import Chord
from v2m.sketch.compose.lead_sheet import LeadSheet, Note
from v2m.sketch.instruments import fit_octave
from v2m.sketch.plan.plan import FormSection
from v2m.sketch.style import Groove, Kit, parse_rhythm, pattern_index

DRUMS = {
    "bass drum": 35,
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "hat": 42,
    "low tom": 43,
    "pedal hat": 44,
    "open hat": 46,
    "mid tom": 47,
    "crash": 49,
    "high tom": 50,
    "ride": 51,
    "tambourine": 54,
    "cymbals": 57,
    "conga": 63,
    "shaker": 70,
    "triangle": 81,
}
FILL_BEATS = 2
LIGHT_DRUMS = {DRUMS[name] for name in ("hat", "shaker", "ride", "pedal hat", "triangle", "tambourine")}
SOFT_VELOCITY = 60  # MIDI velocity
FILL_LEVEL = 0.78  # of the velocity: toms and rolls carry further than the groove
DRUM_NOTE_BEATS = 0.25  # beats; drums ring as long as they ring


def compose_drums(
    sheet: LeadSheet, kit: Kit, passages: list[tuple[int, FormSection]], rng: Random, variation: int = 0
) -> list[Note]:
    """The groove of each of `passages`, with the fill where another follows; `turn` is that of `by_energy`."""
    notes: list[Note] = []
    for index, passage in passages:
        groove = kit.grooves[pattern_index(len(kit.grooves), passage.energy, variation)]
        if passage.name == "intro":
            groove = {drum: rhythm for drum, rhythm in groove.items() if DRUMS[drum] in LIGHT_DRUMS}
        following = sheet.plan.sections[index + 1] if index + 1 < len(sheet.plan.sections) else None
        for place, bar in sheet.section_bars(passage):
            number = passage.first + place
            fills = number == passage.last - 1 and following is not None and passage.name != "intro"
            small = not fills and place % 4 == 3 and rng.random() < 0.6
            open_from = bar.beats - (min(FILL_BEATS, bar.beats) if fills else 1 if small else 0)
            notes += [
                n
                for n in _groove_notes(sheet, groove, place, number)
                if not _is_dropped(n, rng) and n.beat < bar.start + open_from
            ]
            if fills or small:
                notes += [
                    n for n in _fill_notes(sheet, rng.choice(kit.fills), number) if n.beat >= bar.start + open_from
                ]
    return notes


def _groove_notes(sheet: LeadSheet, groove: Groove, place: int, number: int) -> list[Note]:
    bar = sheet.plan.bars[number]
    return [
        Note(bar.start + attack.onset, DRUM_NOTE_BEATS, DRUMS[drum], sheet.velocity(attack.loudness, number))
        for drum, rhythm in groove.items()
        for attack in parse_rhythm(rhythm, sheet.style.beats_per_bar, place, bar.beats)
    ]


def _fill_notes(sheet: LeadSheet, fill: Groove, number: int) -> list[Note]:
    """A fill as long as the meter, laid so that its end is the end of the bar, however long that is."""
    bar, meter = sheet.plan.bars[number], sheet.style.beats_per_bar
    return [
        Note(
            bar.start + bar.beats - meter + attack.onset,
            DRUM_NOTE_BEATS,
            DRUMS[drum],
            round(FILL_LEVEL * sheet.velocity(attack.loudness, number)),
        )
        for drum, rhythm in fill.items()
        for attack in parse_rhythm(rhythm, meter, 0, meter)
    ]


def _is_dropped(note: Note, rng: Random) -> bool:
    """Now and then a soft stroke of a light drum is left out."""
    return note.pitch in LIGHT_DRUMS and note.velocity < SOFT_VELOCITY and rng.random() < 0.1


def cut_accents(sheet: LeadSheet, has_drums: bool, min_gap_beats: float) -> tuple[list[Note], list[Note], list[Note]]:
    """(drums, low, high) struck on the cuts that fall on beats: in full on downbeats, a drum and a tone elsewhere.

    `breath`: beats that must lie between two full accents; cuts that come faster get a lighter one. The start of a
    section counts as a cut of middling strength, the last chord as a strong one.
    """
    marks = {bar.start: 0.45 for index, bar in enumerate(sheet.plan.bars) if index and _opens_section(sheet, index)}
    for beat, strength in sheet.hit_strengths.items():
        marks[beat] = max(strength, marks.get(beat, 0.0))
    marks[sheet.last_bar.start] = max(0.6, marks.get(sheet.last_bar.start, 0.0))
    struck: list[Note] = []
    low: list[Note] = []
    high: list[Note] = []
    latest = -min_gap_beats
    for beat, strength in sorted(marks.items()):
        chord = sheet.chord_at(beat)
        number = sheet.spans[sheet.span_index_at(beat)].bar
        velocity = min(120, round(sheet.velocity(4.5 + 4.5 * strength, number)))
        full = beat in sheet.downbeats and (beat - latest >= min_gap_beats or beat == sheet.last_bar.start)
        if has_drums:
            names = sheet.style.accent.drums if full else sheet.style.accent.drums[1:2]
            struck += [Note(beat, DRUM_NOTE_BEATS, DRUMS[name], velocity) for name in names]
        if not full:
            high.append(Note(beat, 1.0, fit_octave(_triad_tones(chord)[0], 72, 83), velocity))
            continue
        latest = beat
        length = sheet.end_beat - beat if beat == sheet.last_bar.start else 2.0
        low.append(Note(beat, length, fit_octave(chord.bass, 28, 39), velocity))
        high += [Note(beat, length, fit_octave(pc, 72, 83), velocity) for pc in _triad_tones(chord)]
    return struck, low, high


def _triad_tones(chord: Chord) -> tuple[int, ...]:
    """The triad; of a seventh chord the third and fifth, since its root would rub with the seventh."""
    return chord.pitch_classes[1:3] if len(chord.pitch_classes) > 3 else chord.pitch_classes


def _opens_section(sheet: LeadSheet, index: int) -> bool:
    return any(passage.first == index for passage in sheet.plan.sections)


def transition_notes(sheet: LeadSheet, kind: str) -> list[Note]:
    """What announces a louder passage over the two beats before it: a cymbal roll or a harp's run."""
    notes: list[Note] = []
    for bar in sheet.crescendo_bars():
        start, beats = bar.start + bar.beats, min(2, bar.beats)
        if kind == "gliss":
            key, top = sheet.key, sheet.key.nearest_step(84)
            count = beats * 6
            for place in range(count):
                pitch = key.pitch(top - count + place, sheet.chord_at(start - 0.01))
                notes.append(Note(start - beats + place / 6, 0.4, pitch, 34 + 40 * place // count))
        else:
            count = beats * 8
            for place in range(count):
                velocity = 8 + 48 * (place + 1) ** 2 // count**2
                notes.append(Note(start - beats + place / 8, DRUM_NOTE_BEATS, DRUMS["crash"], velocity))
    return notes
