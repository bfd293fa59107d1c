"""Arrangement: from plan, style and tags to the parts of a piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from v2m.core.types import Tags
from v2m.sketch.compose import drums, harmony, melody, motif
from v2m.sketch.compose.accompaniment import Accompanist
from v2m.sketch.compose.emphasis import strike_on_cuts, thin_still_beats
from v2m.sketch.compose.lead_sheet import LeadSheet, Note, Part, rng_for
from v2m.sketch.compose.orchestration import HARP_PROGRAM, apply_mood_dynamics, choose_key, orchestrate
from v2m.sketch.compose.transitions import add_pickups, rest_before_black, swell_parts
from v2m.sketch.instruments import INSTRUMENTS, KITS, fit_octave
from v2m.sketch.plan.planner import FormSection, Plan
from v2m.sketch.style import Layer, Style

ACCENT_LEVEL_DB = -2.5  # of the kit's strokes on the cuts
MIN_HELD_BEATS = 0.9  # of a melody tone that accompanists keep clear of
HAND_OVER_PROBABILITY = 0.6  # that a theme other than the first is played by the answering voice
UNSTRESSED = 0.92  # of the velocity of notes away from the cuts
MAX_TIMING_BEATS = 0.04  # of a humanized attack, early or late
SUSTAINED_PROGRAMS = {*range(40, 45), *range(48, 54), *range(56, 80)}  # bowed, sung and blown
MIN_SWELL_BEATS = 1.5  # of a tone that swells
SWELL_START = 0.9  # of full expression, at the start and the end of a tone
EXACT_REPEAT_BEATS = 0.03  # within which two attacks of one pitch are one


@dataclass(frozen=True)
class Piece:
    """A composed piece: the lead sheet, the parts to play, and each theme's progression in Roman numerals."""

    sheet: LeadSheet
    parts: tuple[Part, ...]
    progressions: Mapping[str, str]


def compose(plan: Plan, style: Style, tags: Tags, seed: int) -> Piece:
    """Compose a piece on `plan`. Each choice draws from a random stream of its own, derived from `seed`."""
    plan, seed_label = apply_mood_dynamics(plan, tags), f"{seed} {style.name}"
    style = orchestrate(style, tags, rng_for(seed_label, "cast"))
    key = choose_key(style, tags, rng_for(seed_label, "key"))
    themes = _themes(plan)
    progressions = harmony.choose_progressions(style, key, themes, rng_for(seed_label, "harmony"))
    spans = harmony.harmonize(plan, style, key, progressions, rng_for(seed_label, "chords"))
    sheet = LeadSheet(plan, style, key, tuple(spans))
    symbols = {theme: " | ".join(" ".join(bar) for bar in progressions[theme]) for theme in themes}
    return Piece(sheet, tuple(_compose_parts(sheet, seed_label)), symbols)


def recompose(piece: Piece, plan: Plan, style: Style, tags: Tags, *, seed: int, variation_seed: int) -> Piece:
    """Compose other melodies and figures on the beats, in the key and over the chords of `piece`.

    Args:
        piece: The result of `compose` for the same `plan`, `style` and `seed`.
        plan: The plan of `piece`, before mood dynamics.
        style: The style of `piece`, before orchestration.
        tags: Instruments and moods of the new parts; the key stays that of `piece`.
        seed: The seed of `piece`.
        variation_seed: The seed of the new parts.
    """
    seed_label = f"{seed} {style.name}"
    style = orchestrate(style, tags, rng_for(seed_label, "cast"))
    sheet = replace(piece.sheet, plan=apply_mood_dynamics(plan, tags), style=style)
    parts = _compose_parts(sheet, f"{seed_label}, anew {variation_seed}", is_variation=True)
    return replace(piece, sheet=sheet, parts=tuple(parts))


def _themes(plan: Plan) -> list[str]:
    return list(dict.fromkeys(p.name for p in plan.sections if p.name not in {"intro", "ending"})) or ["A"]


def _compose_parts(sheet: LeadSheet, seed: str, *, is_variation: bool = False) -> list[Part]:
    """Compose all parts over `sheet`."""
    melodies = _melody_parts(sheet, _themes(sheet.plan), seed, is_variation)
    parts = (
        melodies
        + _accompaniment_parts(sheet, melodies, seed, is_variation)
        + _percussion_parts(sheet, seed, is_variation)
        + swell_parts(sheet)
    )
    parts = rest_before_black(sheet, parts)
    parts = [strike_on_cuts(sheet, thin_still_beats(sheet, part)) for part in parts]
    return [_humanize(sheet, part, rng_for(seed, f"feel {index}")) for index, part in enumerate(parts) if part.notes]


def _variation_offset(seed: str, purpose: str, is_variation: bool) -> int:
    """Return a variation's random offset from the figure that the energy selects."""
    return rng_for(seed, f"turn {purpose}").choice((-1, 1)) if is_variation else 0


def _active_sections(sheet: LeadSheet, min_energy: float) -> list[tuple[int, FormSection]]:
    return [(index, section) for index, section in sheet.sections() if section.energy >= min_energy]


def _make_part(layer: Layer, notes: list[Note]) -> Part:
    program = layer.programs[0]
    name, low, high = INSTRUMENTS[program]
    playable = [note._replace(pitch=fit_octave(note.pitch, low, high)) for note in notes if note.length > 0]
    return Part(name, layer.stem, program, level_db=layer.level_db, pan=layer.pan, notes=playable)


def _melody_parts(sheet: LeadSheet, themes: list[str], seed: str, is_variation: bool) -> list[Part]:
    """Compose lead and answer; in some themes and in every third statement they change instruments."""
    motifs = {theme: motif.invent(sheet.style, rng_for(seed, f"motif {theme}")) for theme in themes}
    layers = {layer.kind: layer for layer in sheet.style.layers if layer.kind in {"lead", "answer"}}
    if "lead" not in layers:
        return []
    lead, answer = layers["lead"], layers.get("answer")
    lead_notes, rests = melody.compose_lead(
        sheet, motifs, lead.low, lead.high, rng_for(seed, "lead"), plays_intro=is_variation
    )
    lead_notes = add_pickups(sheet, lead_notes, lead.low, lead.high)
    if answer is None:
        return [_make_part(lead, lead_notes)]
    answer_notes = melody.compose_answer(sheet, motifs, rests, answer, rng_for(seed, "answer"))
    rng = rng_for(seed, "hand over")
    swapped_themes = {theme for theme in themes if theme != themes[0] and rng.random() < HAND_OVER_PROBABILITY}
    swaps = [
        section
        for _, section in sheet.sections()
        if section.energy >= answer.min_energy
        and section.name not in {"intro", "ending"}
        and (section.name in swapped_themes) != (section.variant % 3 == 2)
    ]
    lead_notes, lead_to_answer = _hand_over(sheet, swaps, lead_notes, answer)
    answer_notes, answer_to_lead = _hand_over(sheet, swaps, answer_notes, lead)
    parts = [_make_part(lead, lead_notes + answer_to_lead), _make_part(answer, answer_notes + lead_to_answer)]
    for part in parts:
        if part.program in SUSTAINED_PROGRAMS:
            part.expression = _swell_points(part.notes)
    return parts


def _swell_points(notes: list[Note]) -> list[tuple[float, float]]:
    """Return the expression curve of a bowed or blown melody: its long tones swell and fall off."""
    points: list[tuple[float, float]] = []
    for note in sorted(notes):
        end = note.beat + note.length
        peak = [(note.beat + 0.6 * note.length, 1.0)] if note.length >= MIN_SWELL_BEATS else []
        points += [(note.beat, SWELL_START), *peak, (end, SWELL_START)]
    return sorted(points)


def _hand_over(
    sheet: LeadSheet, swaps: list[FormSection], notes: list[Note], target: Layer
) -> tuple[list[Note], list[Note]]:
    """Split `notes` into those that stay and those of `swaps`, moved by octaves into `target`'s register."""
    remaining, transferred = list(notes), []
    for section in swaps:
        start, end = sheet.plan.bars[section.first].start, sheet.plan.bars[section.last].start
        moved = [note for note in remaining if start <= note.beat < end]
        remaining = [note for note in remaining if not start <= note.beat < end]
        if moved:
            mean_pitch = sum(note.pitch for note in moved) / len(moved)
            shift = 12 * round(((target.low + target.high) / 2 - mean_pitch) / 12)
            transferred += [
                note._replace(pitch=fit_octave(note.pitch + shift, target.low, target.high)) for note in moved
            ]
    return remaining, transferred


def _accompaniment_parts(sheet: LeadSheet, melodies: list[Part], seed: str, is_variation: bool) -> list[Part]:
    """Compose the other pitched layers, each clear of those before; in an intro they enter in turn."""
    occupied: dict[int, set[int]] = {}
    for note in (note for part in melodies for note in part.notes if note.length >= MIN_HELD_BEATS):
        occupied.setdefault(sheet.span_index_at(note.beat), set()).add(note.pitch)
    layers = [layer for layer in sheet.style.layers if layer.kind not in {"lead", "answer"}]
    parts: list[Part] = []
    for index, layer in enumerate(layers):
        label = f"{layer.kind} {index}"
        variation = _variation_offset(seed, label, is_variation)
        accompanist = Accompanist(sheet, layer, rng_for(seed, label), occupied, variation=variation)
        active = _active_sections(sheet, layer.min_energy)
        for _, section in active:
            delay = index * (section.last - section.first) // len(layers) if section.name == "intro" else 0
            accompanist.play_section(section, section.first + delay)
        plays_to_the_end = bool(active) and active[-1][1].last == len(sheet.plan.bars) - 1
        if layer.min_energy <= 0.2 or plays_to_the_end or len(sheet.plan.bars) == 1:
            accompanist.play_final_chord()
        part = _make_part(layer, accompanist.notes)
        if layer.kind == "pad":
            part.expression = _expression_points(sheet)
            if sheet.style.sidechain_depth and sheet.style.kit is not None:
                drummed = _active_sections(sheet, sheet.style.kit.min_energy)
                part.expression = _apply_sidechain(sheet, part.expression, drummed)
        parts.append(part)
    return parts


def _expression_points(sheet: LeadSheet) -> list[tuple[float, float]]:
    """Return the expression curve of sustained parts: the energy of each bar, falling with the last chord."""
    points = [
        (float(bar.start), 0.74 + 0.24 * float(e)) for bar, e in zip(sheet.plan.bars, sheet.plan.energy, strict=True)
    ]
    for index, section in enumerate(sheet.plan.sections[1:], 1):  # a short crescendo into each louder section
        if section.energy > sheet.plan.sections[index - 1].energy:
            start = float(sheet.plan.bars[section.first].start)
            points.append((start - 0.25, min(1.0, 0.82 + 0.18 * section.energy)))
    start, end = float(sheet.last_bar.start), sheet.end_beat
    points += [(start + 0.35 * (end - start), 0.8), (end, 0.6)]
    return sorted(points)


def _apply_sidechain(
    sheet: LeadSheet, points: list[tuple[float, float]], sections: list[tuple[int, FormSection]]
) -> list[tuple[float, float]]:
    """Duck the expression `points` on every beat of `sections`, like a compressor keyed by the kick."""
    depth = sheet.style.sidechain_depth
    beats, values = zip(*points, strict=True)
    ducked: list[tuple[float, float]] = []
    for _, section in sections:
        for beat in range(sheet.plan.bars[section.first].start, sheet.plan.bars[section.last].start):
            level = float(np.interp(beat, beats, values))
            ducked += [(beat - 0.02, level), (beat + 0.02, level * (1 - depth)), (beat + 0.6, level)]
    return sorted(points + ducked)


def _percussion_parts(sheet: LeadSheet, seed: str, is_variation: bool) -> list[Part]:
    """Compose the drum kit, the accents on the cuts and the transitions."""
    style, kit, rng = sheet.style, sheet.style.kit, rng_for(seed, "drums")
    parts: list[Part] = []
    strokes, low, high = drums.cut_accents(sheet)
    if kit is not None:
        variation = _variation_offset(seed, "drums", is_variation)
        notes = drums.compose_drums(sheet, kit, _active_sections(sheet, kit.min_energy), rng, variation)
        name = KITS[kit.programs[0]]
        parts.append(Part(name, "drums", kit.programs[0], True, kit.level_db, notes=notes))
        strokes += drums.transition_notes(sheet, "swell") if style.transition == "swell" else []
        parts.append(Part(f"{name} accents", "effects", kit.programs[0], True, ACCENT_LEVEL_DB, notes=strokes))
    if style.accent.low_program is not None:
        parts.append(_make_part(Layer("effects", "", (style.accent.low_program,), level_db=-3), low))
    if style.accent.high_program is not None:
        parts.append(_make_part(Layer("effects", "", (style.accent.high_program,), level_db=-6, pan=0.2), high))
    if style.transition == "gliss":
        harp = Layer("effects", "", (HARP_PROGRAM,), level_db=-9, pan=-0.3)
        parts.append(_make_part(harp, drums.transition_notes(sheet, "gliss")))
    return parts


def _humanize(sheet: LeadSheet, part: Part, rng: Random) -> Part:
    """Add swing and random timing; notes on a cut are moved to it and stressed, the last chord is exact."""
    style = sheet.style
    notes: list[Note] = []
    for note in part.notes:
        start, end = style.swing_beat(note.beat), style.swing_beat(note.beat + note.length)
        hit, shift = sheet.hits.get(note.beat), sheet.hit_shift(note.beat)
        is_exact = hit is not None or note.beat == sheet.last_bar.start or part.stem == "effects"
        offset = 0.0 if is_exact else rng.gauss(0.0, style.timing_std_beats)
        offset = min(max(offset, -MAX_TIMING_BEATS), MAX_TIMING_BEATS)
        stress = rng.gauss(UNSTRESSED, 0.05) if hit is None else 1.0 + 0.25 * hit.strength
        velocity = min(max(round(note.velocity * stress), 1), 127)
        start = max(0.0, start + offset + shift)
        notes.append(Note(start, min(max(end - start, 0.05), sheet.end_beat - start), note.pitch, velocity))
    return replace(part, notes=_resolve_overlaps(notes))


def _resolve_overlaps(notes: list[Note]) -> list[Note]:
    """Sort by time and end each note where its pitch is struck again; of two at once the louder stays."""
    resolved: list[Note] = []
    sounding: dict[int, int] = {}
    for note in sorted(notes, key=lambda n: (n.beat, n.pitch, -n.velocity)):
        index = sounding.get(note.pitch)
        if index is not None and resolved[index].beat + resolved[index].length > note.beat:
            gap = note.beat - resolved[index].beat
            if gap < EXACT_REPEAT_BEATS:
                continue
            resolved[index] = resolved[index]._replace(length=gap)
        sounding[note.pitch] = len(resolved)
        resolved.append(note)
    return resolved
