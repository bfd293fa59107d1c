"""Notes for the picture: swells over dissolves, rests before black, pick-ups to strong cuts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from v2m.sketch.compose.drums import DRUM_NOTE_BEATS, DRUMS, triad_tones
from v2m.sketch.compose.lead_sheet import LeadSheet, Note, Part
from v2m.sketch.instruments import INSTRUMENTS, KITS, fit_octave
from v2m.sketch.style import Layer

MIN_SWELL_BEATS = 1.0  # of a swell, about the middle of a shorter dissolve
SWELL_LOUDNESS = (4.5, 8.0)  # of the notes, for a dissolve of strength 0 and of strength 1
SWELL_START, SWELL_END = 0.25, 0.35  # of full expression
SWELL_LEVEL_DB = 3.0  # above the pads of the style
ROLLS_PER_BEAT = 8  # strokes of a cymbal roll
ROLL_VELOCITIES = (8, 52)  # at the ends of a roll, and at its peak
MIN_REST_BEATS = 1.0  # of melody and drums before black
PICKUP_STRENGTH = 0.7  # of a cut, from which the lead leads to it
PICKUP_BEATS = (-1.0, -0.5)  # of the tones of a pick-up, from the cut
PICKUP_LOUDNESS = (5, 6)
MIN_HELD_BEATS = 0.5  # of a tone that a pick-up ends early


def swell_parts(sheet: LeadSheet) -> list[Part]:
    """Return a chord of the style's pads that swells to the middle of each dissolve, and a cymbal roll.

    Styles without pads get the roll alone, styles without drums or cymbal swells the chord alone.
    """
    spans = list(_dissolves(sheet))
    if not spans:
        return []
    style = sheet.style
    pad = next((layer for layer in style.layers if layer.kind == "pad"), None)
    parts = [_pad_swells(sheet, pad, spans)] if pad is not None else []
    if style.kit is not None and (pad is None or style.transition == "swell"):
        rolls = [note for start, end, strength in spans for note in _roll(start, end, strength)]
        name = KITS[style.kit.programs[0]]
        parts.append(Part(f"{name} rolls", "effects", style.kit.programs[0], True, style.kit.level_db, notes=rolls))
    return parts


def _dissolves(sheet: LeadSheet) -> Iterator[tuple[float, float, float]]:
    """Yield (first beat, last beat, strength) of the dissolves that start before the final chord."""
    for part in sheet.plan.transitions:
        if part.kind != "dissolve":
            continue
        start, end = (float(beat) for beat in sheet.plan.tempo_map.time_to_beat([part.start, part.end]))
        margin = max(0.0, MIN_SWELL_BEATS - (end - start)) / 2
        start, end = max(0.0, start - margin), min(end + margin, sheet.end_beat)
        if start < sheet.last_bar.start and end - start > DRUM_NOTE_BEATS:
            yield start, end, part.strength


def _pad_swells(sheet: LeadSheet, pad: Layer, spans: list[tuple[float, float, float]]) -> Part:
    """Return one part with the chords under each dissolve and an expression that peaks in its middle."""
    program = pad.programs[0]
    notes: list[Note] = []
    points: list[tuple[float, float]] = []
    for start, end, strength in spans:
        low, high = SWELL_LOUDNESS
        first, last = sheet.span_index_at(start), sheet.span_index_at(end - 1e-3)
        for span in sheet.spans[first : last + 1]:
            beat = max(start, span.start)
            length = min(end, span.start + span.beats) - beat
            velocity = sheet.velocity(low + (high - low) * strength, span.bar)
            pitches = {fit_octave(pc, pad.low, pad.low + 11) for pc in triad_tones(span.chord)}
            notes += [Note(beat, length, pitch, velocity) for pitch in sorted(pitches)]
        points += [(start, SWELL_START), ((start + end) / 2, 1.0), (end, SWELL_END)]
    return Part(
        INSTRUMENTS[program][0], "effects", program, level_db=pad.level_db + SWELL_LEVEL_DB, pan=-pad.pan,
        notes=notes, expression=sorted(points),
    )  # fmt: skip


def _roll(start: float, end: float, strength: float) -> Iterator[Note]:
    """Yield the strokes of a cymbal roll that is loudest in the middle."""
    count = max(2, round((end - start) * ROLLS_PER_BEAT))
    low, high = ROLL_VELOCITIES
    for index in range(count):
        share = 1 - abs(2 * (index + 0.5) / count - 1)
        velocity = round(low + (high - low) * (0.5 + 0.5 * strength) * share**2)
        yield Note(start + (end - start) * index / count, DRUM_NOTE_BEATS, DRUMS["crash"], velocity)


def rest_before_black(sheet: LeadSheet, parts: list[Part]) -> list[Part]:
    """Return `parts` with melody and drums at rest while the picture fades to black."""
    rests = [_rest(sheet, part.start, part.end) for part in sheet.plan.transitions if part.kind == "fade out"]
    for start, end in rests:
        parts = [
            replace(part, notes=list(_without(part, start, end))) if part.stem in {"melody", "drums"} else part
            for part in parts
        ]
    return parts


def _rest(sheet: LeadSheet, start_s: float, end_s: float) -> tuple[float, float]:
    start, end = (float(beat) for beat in sheet.plan.tempo_map.time_to_beat([start_s, end_s]))
    return min(start, end - MIN_REST_BEATS), min(end, float(sheet.last_bar.start))


def _without(part: Part, start: float, end: float) -> Iterator[Note]:
    for note in part.notes:
        if not start <= note.beat < end - 1e-6:
            ends_early = not part.is_drums and note.beat < start
            yield note._replace(length=min(note.length, start - note.beat)) if ends_early else note


def add_pickups(sheet: LeadSheet, notes: list[Note], low: int, high: int) -> list[Note]:
    """Return the lead's `notes` with two steps to its tone on each strong cut, unless it moves there."""
    added: list[Note] = []
    last = -float(sheet.style.beats_per_bar)
    for beat, hit in sorted(sheet.hits.items()):
        if hit.strength < PICKUP_STRENGTH or beat - last < sheet.style.beats_per_bar or beat + PICKUP_BEATS[0] < 0:
            continue
        start = beat + PICKUP_BEATS[0]
        target = next((note for note in notes if abs(note.beat - beat) < 1e-6), None)
        held = next((note for note in notes if note.beat < start < note.beat + note.length), None)
        is_moving = any(start - 1e-6 <= note.beat < beat - 1e-6 for note in notes)
        if target is None or is_moving or (held is not None and start - held.beat < MIN_HELD_BEATS):
            continue
        if held is not None:
            notes = [note._replace(length=start - note.beat) if note is held else note for note in notes]
        added += _pickup(sheet, target, low, high)
        last = beat
    return sorted(notes + added)


def _pickup(sheet: LeadSheet, target: Note, low: int, high: int) -> Iterator[Note]:
    """Yield the tones before `target`, from below where the register allows."""
    key = sheet.key
    step = key.nearest_step(target.pitch)
    direction = 1 if key.pitch(step - 2) >= low else -1
    for rank, (offset, loudness) in enumerate(zip(PICKUP_BEATS, PICKUP_LOUDNESS, strict=True)):
        beat = target.beat + offset
        pitch = key.pitch(step - direction * (len(PICKUP_BEATS) - rank), sheet.chord_at(beat))
        bar = sheet.spans[sheet.span_index_at(beat)].bar
        yield Note(beat, 0.5, min(pitch, high), sheet.velocity(loudness, bar))
