"""Drums: grooves with small variations, fills, accents on the cuts, transitions."""

from __future__ import annotations

from random import Random

from v2m.sketch.compose.harmony import Chord
from v2m.sketch.compose.lead_sheet import LeadSheet, Note
from v2m.sketch.instruments import fit_octave
from v2m.sketch.plan.planner import FormSection
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
FILL_STRENGTH = 0.7  # of a cut on a downbeat, from which a fill leads to it
SHORT_FILL_PROBABILITY = 0.6  # of one beat at the end of every fourth bar
DROP_PROBABILITY = 0.1  # that a soft stroke of a light drum is left out
LIGHT_DRUMS = {DRUMS[name] for name in ("hat", "shaker", "ride", "pedal hat", "triangle", "tambourine")}
SOFT_VELOCITY = 60
FILL_LEVEL = 0.78  # of the velocity: toms and rolls carry further than the groove
CHORD_ACCENT = 0.5  # strength of a cut from which its accent is a chord wherever in the bar
SHORT_ACCENT_BEATS = 0.75
REST_BEATS = 0.25  # before a cut, where the drums rest
DRUM_NOTE_BEATS = 0.25  # drums ring on whatever their note's length
SECTION_ACCENT, FINAL_ACCENT = 0.45, 0.6  # least strength of the accents on a section's start and the final chord


def compose_drums(
    sheet: LeadSheet, kit: Kit, sections: list[tuple[int, FormSection]], rng: Random, variation: int = 0
) -> list[Note]:
    """Compose the groove of each of `sections`, with fills before the next one and before strong cuts.

    `variation` is the offset of `pattern_index`.
    """
    notes: list[Note] = []
    for index, section in sections:
        following = sheet.plan.sections[index + 1] if index + 1 < len(sheet.plan.sections) else None
        for position, bar in sheet.section_bars(section):
            number = section.first + position
            ends_section = number == section.last - 1 and following is not None
            hit = sheet.hits.get(bar.start + bar.beats)
            leads_to_cut = hit is not None and hit.strength >= FILL_STRENGTH
            has_fill = (ends_section or leads_to_cut) and section.name != "intro"
            has_short_fill = not has_fill and position % 4 == 3 and rng.random() < SHORT_FILL_PROBABILITY
            fill_beats = min(FILL_BEATS, bar.beats) if has_fill else 1 if has_short_fill else 0
            fill_start = bar.start + bar.beats - fill_beats
            strokes = [
                note
                for first, last, energy in sheet.bar_parts(section, number)
                for note in _groove_notes(sheet, _choose_groove(kit, section, energy, variation), position, number)
                if first <= note.beat - bar.start < last and not _is_dropped(note, rng)
            ]
            notes += [note for note in strokes if note.beat < fill_start]
            if fill_beats:
                fill = _fill_notes(sheet, rng.choice(kit.fills), number)
                notes += [note for note in fill if note.beat >= fill_start]
    rests = [round(beat - REST_BEATS, 6) for beat in sheet.hits]
    return [note for note in notes if round(note.beat, 6) not in rests]


def _choose_groove(kit: Kit, section: FormSection, energy: float, variation: int) -> Groove:
    """Return the groove for `energy`, in an intro its light drums alone."""
    groove = kit.grooves[pattern_index(len(kit.grooves), energy, variation)]
    if section.name == "intro":
        return {drum: rhythm for drum, rhythm in groove.items() if DRUMS[drum] in LIGHT_DRUMS}
    return groove


def _groove_notes(sheet: LeadSheet, groove: Groove, position: int, number: int) -> list[Note]:
    bar = sheet.plan.bars[number]
    return [
        Note(bar.start + attack.onset, DRUM_NOTE_BEATS, DRUMS[drum], sheet.velocity(attack.loudness, number))
        for drum, rhythm in groove.items()
        for attack in parse_rhythm(rhythm, sheet.style.beats_per_bar, position, bar.beats)
    ]


def _fill_notes(sheet: LeadSheet, fill: Groove, number: int) -> list[Note]:
    """Return the notes of a regular bar's fill, aligned to the end of a bar of any length."""
    bar, beats_per_bar = sheet.plan.bars[number], sheet.style.beats_per_bar
    return [
        Note(
            bar.start + bar.beats - beats_per_bar + attack.onset,
            DRUM_NOTE_BEATS,
            DRUMS[drum],
            round(FILL_LEVEL * sheet.velocity(attack.loudness, number)),
        )
        for drum, rhythm in fill.items()
        for attack in parse_rhythm(rhythm, beats_per_bar, 0, beats_per_bar)
    ]


def _is_dropped(note: Note, rng: Random) -> bool:
    return note.pitch in LIGHT_DRUMS and note.velocity < SOFT_VELOCITY and rng.random() < DROP_PROBABILITY


def cut_accents(sheet: LeadSheet) -> tuple[list[Note], list[Note], list[Note]]:
    """Return accents (drums, low, high) on all cuts that are met: full on downbeats, else shorter ones.

    Full accents keep a bar's distance. Others are a drum and a tone, or at strong cuts a short chord with its bass. The
    start of a section counts as a cut of medium strength, the final chord as a strong one.
    """
    accent, min_gap_beats = sheet.style.accent, max(3, sheet.style.beats_per_bar)
    section_starts = {section.first for section in sheet.plan.sections} - {0}
    strengths: dict[float, float] = {
        bar.start: SECTION_ACCENT for index, bar in enumerate(sheet.plan.bars) if index in section_starts
    }
    for beat, hit in sheet.hits.items():
        strengths[beat] = max(hit.strength, strengths.get(beat, 0.0))
    strengths[sheet.last_bar.start] = max(FINAL_ACCENT, strengths.get(sheet.last_bar.start, 0.0))
    strokes: list[Note] = []
    low: list[Note] = []
    high: list[Note] = []
    last_full = -float(min_gap_beats)
    for beat, strength in sorted(strengths.items()):
        span, is_final = sheet.spans[sheet.span_index_at(beat)], beat == sheet.last_bar.start
        velocity = min(120, round(sheet.velocity(6 + 3 * strength, span.bar)))
        is_full = beat in sheet.downbeats and (beat - last_full >= min_gap_beats or is_final)
        is_chord = is_full or strength >= CHORD_ACCENT
        names = accent.drums if is_chord else accent.drums[:2]
        strokes += [Note(beat, DRUM_NOTE_BEATS, DRUMS[name], velocity) for name in names]
        length = sheet.end_beat - beat if is_final else 2.0 if is_full else SHORT_ACCENT_BEATS
        if is_chord or not (names or accent.high_program):
            low.append(Note(beat, length, fit_octave(span.chord.bass, 28, 39), velocity))
        tones = triad_tones(span.chord)
        high += [Note(beat, length, fit_octave(pc, 72, 83), velocity) for pc in (tones if is_chord else tones[:1])]
        last_full = beat if is_full else last_full
    return strokes, low, high


def triad_tones(chord: Chord) -> tuple[int, ...]:
    """Return the triad, or of a seventh chord the third and fifth: its root would clash with the seventh."""
    return chord.pitch_classes[1:3] if len(chord.pitch_classes) > 3 else chord.pitch_classes


def transition_notes(sheet: LeadSheet, kind: str) -> list[Note]:
    """Return a cymbal roll ("swell") or harp run ("gliss") over the two beats before each louder section."""
    notes: list[Note] = []
    for bar in sheet.crescendo_bars():
        start, beats = bar.start + bar.beats, min(2, bar.beats)
        if kind == "gliss":
            key, top = sheet.key, sheet.key.nearest_step(84)
            count = beats * 6
            for index in range(count):
                pitch = key.pitch(top - count + index, sheet.chord_at(start - 0.01))
                notes.append(Note(start - beats + index / 6, 0.4, pitch, 34 + 40 * index // count))
        else:
            count = beats * 8
            for index in range(count):
                velocity = 8 + 48 * (index + 1) ** 2 // count**2
                notes.append(Note(start - beats + index / 8, DRUM_NOTE_BEATS, DRUMS["crash"], velocity))
    return notes
