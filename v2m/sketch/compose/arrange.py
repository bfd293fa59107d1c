"""Who plays what and when: from plan, style and tags to the parts of a piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from v2m.core.types import Tags
from v2m.sketch.compose import drums, harmony, melody, motif
from v2m.sketch.compose.accompaniment import Accompanist
from v2m.sketch.compose.lead_sheet import LeadSheet, Note, Part, rng_for
from v2m.sketch.compose.orchestration import HARP_PROGRAM, apply_mood_dynamics, choose_key, orchestrate
from v2m.sketch.instruments import INSTRUMENTS, KITS, fit_octave
from v2m.sketch.plan.plan import FormSection, Plan
from v2m.sketch.style import Kit, Layer, Style

ACCENT_LEVEL_DB = -5.0  # dB: the level of the kit's strokes on the cuts
MIN_HELD_BEATS = 0.9  # beats from which a melody's tone counts as held


@dataclass(frozen=True)
class Piece:
    """The composed music: parts to play, and the words for what was chosen."""

    sheet: LeadSheet
    parts: tuple[Part, ...]
    progressions: Mapping[str, str]


def compose(plan: Plan, style: Style, tags: Tags, seed: int) -> Piece:
    """Writes a piece on `plan`. Every choice draws from its own stream of the seed `number`, apart from the others."""
    plan, seed_label = apply_mood_dynamics(plan, tags), f"{seed} {style.name}"
    style = orchestrate(style, tags, rng_for(seed_label, "cast"))
    key = choose_key(style, tags, rng_for(seed_label, "key"))
    themes = _themes(plan)
    chosen = harmony.choose_progressions(style, key, themes, rng_for(seed_label, "harmony"))
    spans = harmony.harmonize(plan, style, key, chosen, rng_for(seed_label, "chords"))
    sheet = LeadSheet(plan, style, key, tuple(spans))
    named = {theme: " | ".join(" ".join(bar) for bar in chosen[theme]) for theme in themes}
    return Piece(sheet, tuple(_compose_parts(sheet, seed_label)), named)


def recompose(piece: Piece, plan: Plan, style: Style, tags: Tags, *, seed: int, variation_seed: int) -> Piece:
    """Other tunes and figures on the beats, in the key and over the chords of `piece`, which `compose` wrote.

    Args:
        piece: What is varied.
        plan: As it was given for that piece; `style` and `number` likewise.
        style: Its players are engaged once more.
        tags: Who is to play, and how loud; the key is the piece's.
        number: The seed of the piece.
        anew: The seed of what is new.
    """
    seed_label = f"{seed} {style.name}"
    sheet = replace(
        piece.sheet, plan=apply_mood_dynamics(plan, tags), style=orchestrate(style, tags, rng_for(seed_label, "cast"))
    )
    return replace(
        piece, sheet=sheet, parts=tuple(_compose_parts(sheet, f"{seed_label}, anew {variation_seed}", varied=True))
    )


def _themes(plan: Plan) -> list[str]:
    return list(dict.fromkeys(p.name for p in plan.sections if p.name not in {"intro", "ending"})) or ["A"]


def _compose_parts(sheet: LeadSheet, seed: str, *, varied: bool = False) -> list[Part]:
    """The parts of a piece that stands on `sheet`."""
    melodies = _melody_parts(sheet, _themes(sheet.plan), seed, varied)
    parts = melodies + _accompaniment_parts(sheet, melodies, seed, varied) + _percussion_parts(sheet, seed, varied)
    return [_humanize(sheet, part, rng_for(seed, f"feel {place}")) for place, part in enumerate(parts) if part.notes]


def _variation_offset(seed: str, purpose: str, varied: bool) -> int:
    """By how many places a variation's player leaves the figure that the energy asks for."""
    return rng_for(seed, f"turn {purpose}").choice((-1, 1)) if varied else 0


def _active_sections(sheet: LeadSheet, min_energy: float) -> list[tuple[int, FormSection]]:
    return [(index, passage) for index, passage in sheet.sections() if passage.energy >= min_energy]


def _make_part(layer: Layer, notes: list[Note]) -> Part:
    program = layer.programs[0]
    name, low, high = INSTRUMENTS[program]
    kept = [note._replace(pitch=fit_octave(note.pitch, low, high)) for note in notes if note.length > 0]
    return Part(name, layer.stem, program, level_db=layer.level_db, pan=layer.pan, notes=kept)


def _melody_parts(sheet: LeadSheet, themes: list[str], seed: str, varied: bool) -> list[Part]:
    """Lead and answer. Some themes are handed over, and every third statement of any: then the two change parts."""
    ideas = {theme: motif.invent(sheet.style, rng_for(seed, f"motif {theme}")) for theme in themes}
    players = {layer.kind: layer for layer in sheet.style.layers if layer.kind in {"lead", "answer"}}
    if "lead" not in players:
        return []
    first, second = players["lead"], players.get("answer")
    upper, silent = melody.compose_lead(sheet, ideas, first.low, first.high, rng_for(seed, "lead"), plays_intro=varied)
    if second is None:
        return [_make_part(first, upper)]
    lower = melody.compose_answer(sheet, ideas, silent, second, rng_for(seed, "answer"))
    rng = rng_for(seed, "hand over")
    handed = {theme for theme in themes if theme != themes[0] and rng.random() < 0.6}
    swaps = [
        p
        for _, p in sheet.sections()
        if p.energy >= second.min_energy
        and p.name not in {"intro", "ending"}
        and (p.name in handed) != (p.variant % 3 == 2)
    ]
    upper, lower = _hand_over(sheet, swaps, upper, second), _hand_over(sheet, swaps, lower, first)
    return [_make_part(first, upper[0] + lower[1]), _make_part(second, lower[0] + upper[1])]


def _hand_over(
    sheet: LeadSheet, swaps: list[FormSection], notes: list[Note], taker: Layer
) -> tuple[list[Note], list[Note]]:
    """(What stays, what goes to `taker`), each passage of the latter moved by octaves into its register as a whole."""
    kept, given = list(notes), []
    for passage in swaps:
        start, end = sheet.plan.bars[passage.first].start, sheet.plan.bars[passage.last].start
        moved = [note for note in kept if start <= note.beat < end]
        kept = [note for note in kept if not start <= note.beat < end]
        if moved:
            middle = sum(note.pitch for note in moved) / len(moved)
            octaves = 12 * round(((taker.low + taker.high) / 2 - middle) / 12)
            given += [note._replace(pitch=fit_octave(note.pitch + octaves, taker.low, taker.high)) for note in moved]
    return kept, given


def _accompaniment_parts(sheet: LeadSheet, melodies: list[Part], seed: str, varied: bool) -> list[Part]:
    """All players but the melodies, each with an ear for those before. In the intro they come in one after another."""
    heard: dict[int, set[int]] = {}
    for note in (note for part in melodies for note in part.notes if note.length >= MIN_HELD_BEATS):
        heard.setdefault(sheet.span_index_at(note.beat), set()).add(note.pitch)
    layers = [layer for layer in sheet.style.layers if layer.kind not in {"lead", "answer"}]
    parts: list[Part] = []
    for place, layer in enumerate(layers):
        named = f"{layer.kind} {place}"
        player = Accompanist(
            sheet, layer, rng_for(seed, named), heard, variation=_variation_offset(seed, named, varied)
        )
        playing = _active_sections(sheet, layer.min_energy)
        for _, passage in playing:
            waits = place * (passage.last - passage.first) // len(layers) if passage.name == "intro" else 0
            player.play_section(passage, passage.first + waits)
        if (
            layer.min_energy <= 0.2
            or (playing and playing[-1][1].last == len(sheet.plan.bars) - 1)
            or len(sheet.plan.bars) == 1
        ):
            player.play_final_chord()
        part = _make_part(layer, player.notes)
        if layer.kind == "pad":
            part.expression = _expression_points(sheet)
            if sheet.style.sidechain_depth and sheet.style.kit is not None:
                part.expression = _apply_sidechain(
                    sheet, part.expression, _active_sections(sheet, sheet.style.kit.min_energy)
                )
        parts.append(part)
    return parts


def _expression_points(sheet: LeadSheet) -> list[tuple[float, float]]:
    """Expression of sustained parts: it follows the energy bar by bar and leaves with the last chord."""
    points = [
        (float(bar.start), 0.74 + 0.24 * float(e)) for bar, e in zip(sheet.plan.bars, sheet.plan.energy, strict=True)
    ]
    for index, passage in enumerate(sheet.plan.sections[1:], 1):  # a breath of crescendo into each new passage
        before = sheet.plan.sections[index - 1]
        if passage.energy > before.energy:
            start = float(sheet.plan.bars[passage.first].start)
            points.append((start - 0.25, min(1.0, 0.82 + 0.18 * passage.energy)))
    start, end = float(sheet.last_bar.start), sheet.end_beat
    points += [(start + 0.35 * (end - start), 0.8), (end, 0.6)]
    return sorted(points)


def _apply_sidechain(
    sheet: LeadSheet, points: list[tuple[float, float]], passages: list[tuple[int, FormSection]]
) -> list[tuple[float, float]]:
    """The expression `points` ducked on every beat of `passages`, as by a compressor that listens to the kick."""
    depth = sheet.style.sidechain_depth
    beats, values = zip(*points, strict=True)
    ducked: list[tuple[float, float]] = []
    for _, passage in passages:
        for beat in range(sheet.plan.bars[passage.first].start, sheet.plan.bars[passage.last].start):
            level = float(np.interp(beat, beats, values))
            ducked += [(beat - 0.02, level), (beat + 0.02, level * (1 - depth)), (beat + 0.6, level)]
    return sorted(points + ducked)


def _percussion_parts(sheet: LeadSheet, seed: str, varied: bool) -> list[Part]:
    style, rng = sheet.style, rng_for(seed, "drums")
    kit: Kit | None = style.kit
    parts: list[Part] = []
    struck, low, high = drums.cut_accents(sheet, bool(style.accent.drums), float(max(3, style.beats_per_bar)))
    if kit is not None:
        notes = drums.compose_drums(
            sheet, kit, _active_sections(sheet, kit.min_energy), rng, _variation_offset(seed, "drums", varied)
        )
        name = KITS[kit.programs[0]]
        parts.append(Part(name, "drums", kit.programs[0], True, kit.level_db, notes=notes))
        extra = struck + (drums.transition_notes(sheet, "swell") if style.transition == "swell" else [])
        parts.append(Part(f"{name} accents", "effects", kit.programs[0], True, ACCENT_LEVEL_DB, notes=extra))
    if style.accent.low_program is not None:
        parts.append(_make_part(Layer("effects", "", (style.accent.low_program,), level_db=-6), low))
    if style.accent.high_program is not None:
        parts.append(_make_part(Layer("effects", "", (style.accent.high_program,), level_db=-10, pan=0.2), high))
    if style.transition == "gliss":
        parts.append(
            _make_part(
                Layer("effects", "", (HARP_PROGRAM,), level_db=-9, pan=-0.3), drums.transition_notes(sheet, "gliss")
            )
        )
    return parts


def _humanize(sheet: LeadSheet, part: Part, rng: Random) -> Part:
    """Swing and the small unevenness of hands; what falls on a cut is exact and stressed, the last chord exact."""
    style = sheet.style
    notes: list[Note] = []
    for note in part.notes:
        start, stop = _apply_swing(note.beat, style), _apply_swing(note.beat + note.length, style)
        exact = note.beat in sheet.hit_strengths or note.beat == sheet.last_bar.start or part.stem == "effects"
        late = 0.0 if exact else min(max(rng.gauss(0.0, style.timing_std_beats), -0.04), 0.04)
        stress = (
            1.0 + 0.25 * sheet.hit_strengths[int(note.beat)]
            if note.beat in sheet.hit_strengths
            else rng.gauss(1.0, 0.05)
        )
        velocity = min(max(round(note.velocity * stress), 1), 127)
        start = max(0.0, start + late)
        notes.append(Note(start, min(max(stop - start, 0.05), sheet.end_beat - start), note.pitch, velocity))
    return replace(part, notes=_resolve_overlaps(notes))


def _apply_swing(beat: float, style: Style) -> float:
    whole, part = divmod(beat / style.swing_unit + 1e-9, 1.0)
    warped = part / 0.5 * style.swing if part < 0.5 else style.swing + (part - 0.5) / 0.5 * (1 - style.swing)
    return (whole + warped) * style.swing_unit


def _resolve_overlaps(notes: list[Note]) -> list[Note]:
    """In order of time, no note running into the next one of its own pitch; of two at once the louder stays."""
    out: list[Note] = []
    sounding: dict[int, int] = {}
    for note in sorted(notes, key=lambda n: (n.beat, n.pitch, -n.velocity)):
        place = sounding.get(note.pitch)
        if place is not None and out[place].beat + out[place].length > note.beat:
            if note.beat - out[place].beat < 0.03:
                continue
            out[place] = out[place]._replace(length=note.beat - out[place].beat)
        sounding[note.pitch] = len(out)
        out.append(note)
    return out
