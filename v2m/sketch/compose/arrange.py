"""Who plays what and when: from plan, style and tags to the parts of a piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from v2m.core.types import Tags
from v2m.sketch.compose import drums, harmony, melody, motif
from v2m.sketch.compose.accompaniment import Player
from v2m.sketch.compose.lead_sheet import Note, Part, Sheet, stream
from v2m.sketch.compose.orchestration import HARP, cast, choose_key, shade
from v2m.sketch.instruments import INSTRUMENTS, KITS, fold
from v2m.sketch.plan.plan import Passage, Plan
from v2m.sketch.style import Kit, Layer, Style

ACCENTS = -5.0  # dB: the level of the kit's strokes on the cuts
LINGERS = 0.9  # beats from which a melody's tone counts as held


@dataclass(frozen=True)
class Piece:
    """The composed music: parts to play, and the words for what was chosen."""

    sheet: Sheet
    parts: tuple[Part, ...]
    progressions: Mapping[str, str]


def compose(plan: Plan, style: Style, tags: Tags, number: int) -> Piece:
    """Writes a piece on `plan`. Every choice draws from its own stream of the seed `number`, apart from the others."""
    plan, seed = shade(plan, tags), f"{number} {style.name}"
    style = cast(style, tags, stream(seed, "cast"))
    key = choose_key(style, tags, stream(seed, "key"))
    themes = _themes(plan)
    chosen = harmony.choose(style, key, themes, stream(seed, "harmony"))
    spans = harmony.harmonise(plan, style, key, chosen, stream(seed, "chords"))
    sheet = Sheet(plan, style, key, tuple(spans))
    named = {theme: " | ".join(" ".join(bar) for bar in chosen[theme]) for theme in themes}
    return Piece(sheet, tuple(_written(sheet, seed)), named)


def vary(piece: Piece, plan: Plan, style: Style, tags: Tags, *, number: int, anew: int) -> Piece:
    """Other tunes and figures on the beats, in the key and over the chords of `piece`, which `compose` wrote.

    Args:
        piece: What is varied.
        plan: As it was given for that piece; `style` and `number` likewise.
        style: Its players are engaged once more.
        tags: Who is to play, and how loud; the key is the piece's.
        number: The seed of the piece.
        anew: The seed of what is new.
    """
    seed = f"{number} {style.name}"
    sheet = replace(piece.sheet, plan=shade(plan, tags), style=cast(style, tags, stream(seed, "cast")))
    return replace(piece, sheet=sheet, parts=tuple(_written(sheet, f"{seed}, anew {anew}", varied=True)))


def _themes(plan: Plan) -> list[str]:
    return list(dict.fromkeys(p.name for p in plan.passages if p.name not in {"intro", "ending"})) or ["A"]


def _written(sheet: Sheet, seed: str, *, varied: bool = False) -> list[Part]:
    """The parts of a piece that stands on `sheet`."""
    melodies = _melodies(sheet, _themes(sheet.plan), seed, varied)
    parts = melodies + _accompaniment(sheet, melodies, seed, varied) + _percussion(sheet, seed, varied)
    return [_loosened(sheet, part, stream(seed, f"feel {place}")) for place, part in enumerate(parts) if part.notes]


def _turn(seed: str, purpose: str, varied: bool) -> int:
    """By how many places a variation's player leaves the figure that the energy asks for."""
    return stream(seed, f"turn {purpose}").choice((-1, 1)) if varied else 0


def _playing(sheet: Sheet, enters: float) -> list[tuple[int, Passage]]:
    return [(index, passage) for index, passage in sheet.passages() if passage.energy >= enters]


def _part(layer: Layer, notes: list[Note]) -> Part:
    program = layer.programs[0]
    name, low, high = INSTRUMENTS[program]
    kept = [note._replace(pitch=fold(note.pitch, low, high)) for note in notes if note.length > 0]
    return Part(name, layer.stem, program, level=layer.level, pan=layer.pan, notes=kept)


def _melodies(sheet: Sheet, themes: list[str], seed: str, varied: bool) -> list[Part]:
    """Lead and answer. Some themes are handed over, and every third statement of any: then the two change parts."""
    ideas = {theme: motif.invent(sheet.style, stream(seed, f"motif {theme}")) for theme in themes}
    players = {layer.kind: layer for layer in sheet.style.layers if layer.kind in {"lead", "answer"}}
    if "lead" not in players:
        return []
    first, second = players["lead"], players.get("answer")
    upper, silent = melody.lead(sheet, ideas, first.low, first.high, stream(seed, "lead"), early=varied)
    if second is None:
        return [_part(first, upper)]
    lower = melody.answer(sheet, ideas, silent, second, stream(seed, "answer"))
    rng = stream(seed, "hand over")
    handed = {theme for theme in themes if theme != themes[0] and rng.random() < 0.6}
    swaps = [
        p
        for _, p in sheet.passages()
        if p.energy >= second.enters
        and p.name not in {"intro", "ending"}
        and (p.name in handed) != (p.variant % 3 == 2)
    ]
    upper, lower = _exchanged(sheet, swaps, upper, second), _exchanged(sheet, swaps, lower, first)
    return [_part(first, upper[0] + lower[1]), _part(second, lower[0] + upper[1])]


def _exchanged(sheet: Sheet, swaps: list[Passage], notes: list[Note], taker: Layer) -> tuple[list[Note], list[Note]]:
    """(What stays, what goes to `taker`), each passage of the latter moved by octaves into its register as a whole."""
    kept, given = list(notes), []
    for passage in swaps:
        start, end = sheet.plan.bars[passage.first].start, sheet.plan.bars[passage.last].start
        moved = [note for note in kept if start <= note.beat < end]
        kept = [note for note in kept if not start <= note.beat < end]
        if moved:
            middle = sum(note.pitch for note in moved) / len(moved)
            octaves = 12 * round(((taker.low + taker.high) / 2 - middle) / 12)
            given += [note._replace(pitch=fold(note.pitch + octaves, taker.low, taker.high)) for note in moved]
    return kept, given


def _accompaniment(sheet: Sheet, melodies: list[Part], seed: str, varied: bool) -> list[Part]:
    """All players but the melodies, each with an ear for those before. In the intro they come in one after another."""
    heard: dict[int, set[int]] = {}
    for note in (note for part in melodies for note in part.notes if note.length >= LINGERS):
        heard.setdefault(sheet.index_at(note.beat), set()).add(note.pitch)
    layers = [layer for layer in sheet.style.layers if layer.kind not in {"lead", "answer"}]
    parts: list[Part] = []
    for place, layer in enumerate(layers):
        named = f"{layer.kind} {place}"
        player = Player(sheet, layer, stream(seed, named), heard, turn=_turn(seed, named, varied))
        playing = _playing(sheet, layer.enters)
        for _, passage in playing:
            waits = place * (passage.last - passage.first) // len(layers) if passage.name == "intro" else 0
            player.play(passage, passage.first + waits)
        if (
            layer.enters <= 0.2
            or (playing and playing[-1][1].last == len(sheet.plan.bars) - 1)
            or len(sheet.plan.bars) == 1
        ):
            player.final()
        part = _part(layer, player.notes)
        if layer.kind == "pad":
            part.swell = _swell(sheet)
            if sheet.style.pumping and sheet.style.kit is not None:
                part.swell = _pumped(sheet, part.swell, _playing(sheet, sheet.style.kit.enters))
        parts.append(part)
    return parts


def _swell(sheet: Sheet) -> list[tuple[float, float]]:
    """Expression of sustained parts: it follows the energy bar by bar and leaves with the last chord."""
    points = [
        (float(bar.start), 0.74 + 0.24 * float(e)) for bar, e in zip(sheet.plan.bars, sheet.plan.energy, strict=True)
    ]
    for index, passage in enumerate(sheet.plan.passages[1:], 1):  # a breath of crescendo into each new passage
        before = sheet.plan.passages[index - 1]
        if passage.energy > before.energy:
            start = float(sheet.plan.bars[passage.first].start)
            points.append((start - 0.25, min(1.0, 0.82 + 0.18 * passage.energy)))
    start, end = float(sheet.last.start), sheet.end
    points += [(start + 0.35 * (end - start), 0.8), (end, 0.6)]
    return sorted(points)


def _pumped(
    sheet: Sheet, points: list[tuple[float, float]], passages: list[tuple[int, Passage]]
) -> list[tuple[float, float]]:
    """The expression `points` ducked on every beat of `passages`, as by a compressor that listens to the kick."""
    depth = sheet.style.pumping
    beats, values = zip(*points, strict=True)
    ducked: list[tuple[float, float]] = []
    for _, passage in passages:
        for beat in range(sheet.plan.bars[passage.first].start, sheet.plan.bars[passage.last].start):
            level = float(np.interp(beat, beats, values))
            ducked += [(beat - 0.02, level), (beat + 0.02, level * (1 - depth)), (beat + 0.6, level)]
    return sorted(points + ducked)


def _percussion(sheet: Sheet, seed: str, varied: bool) -> list[Part]:
    style, rng = sheet.style, stream(seed, "drums")
    kit: Kit | None = style.kit
    parts: list[Part] = []
    struck, low, high = drums.accents(sheet, bool(style.accent.drums), float(max(3, style.meter)))
    if kit is not None:
        notes = drums.drum_part(sheet, kit, _playing(sheet, kit.enters), rng, _turn(seed, "drums", varied))
        name = KITS[kit.programs[0]]
        parts.append(Part(name, "drums", kit.programs[0], True, kit.level, notes=notes))
        extra = struck + (drums.lead_ins(sheet, "swell") if style.transition == "swell" else [])
        parts.append(Part(f"{name} accents", "effects", kit.programs[0], True, ACCENTS, notes=extra))
    if style.accent.low is not None:
        parts.append(_part(Layer("effects", "", (style.accent.low,), level=-6), low))
    if style.accent.high is not None:
        parts.append(_part(Layer("effects", "", (style.accent.high,), level=-10, pan=0.2), high))
    if style.transition == "gliss":
        parts.append(_part(Layer("effects", "", (HARP,), level=-9, pan=-0.3), drums.lead_ins(sheet, "gliss")))
    return parts


def _loosened(sheet: Sheet, part: Part, rng: Random) -> Part:
    """Swing and the small unevenness of hands; what falls on a cut is exact and stressed, the last chord exact."""
    style = sheet.style
    notes: list[Note] = []
    for note in part.notes:
        start, stop = _swung(note.beat, style), _swung(note.beat + note.length, style)
        exact = note.beat in sheet.hits or note.beat == sheet.last.start or part.stem == "effects"
        late = 0.0 if exact else min(max(rng.gauss(0.0, style.looseness), -0.04), 0.04)
        stress = 1.0 + 0.25 * sheet.hits[int(note.beat)] if note.beat in sheet.hits else rng.gauss(1.0, 0.05)
        velocity = min(max(round(note.velocity * stress), 1), 127)
        start = max(0.0, start + late)
        notes.append(Note(start, min(max(stop - start, 0.05), sheet.end - start), note.pitch, velocity))
    return replace(part, notes=_untangled(notes))


def _swung(beat: float, style: Style) -> float:
    whole, part = divmod(beat / style.swing_unit + 1e-9, 1.0)
    warped = part / 0.5 * style.swing if part < 0.5 else style.swing + (part - 0.5) / 0.5 * (1 - style.swing)
    return (whole + warped) * style.swing_unit


def _untangled(notes: list[Note]) -> list[Note]:
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
