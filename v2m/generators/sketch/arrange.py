"""Who plays what and when: from plan, style and tags to the parts of a piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from v2m.generators.sketch import drums, harmony, melody, motif
from v2m.generators.sketch.chords import Key
from v2m.generators.sketch.instruments import INSTRUMENTS, KITS, fold, parts_named
from v2m.generators.sketch.plan import Passage, Plan
from v2m.generators.sketch.players import Player
from v2m.generators.sketch.sheet import Note, Part, Sheet
from v2m.generators.sketch.style import Kit, Layer, Style
from v2m.generators.sketch.styles.folk import FOLK
from v2m.types import Tags

_DARK = "sad dark melanchol tense somber sombre mysterious ominous brooding angry aggressive lonely nostalg dramatic suspense"
_BRIGHT = (
    "happy bright cheerful joy playful uplifting sunny hopeful warm carefree triumphant optimistic romantic peaceful"
)
_QUIET = "calm gentle soft peaceful quiet intimate tender delicate serene relax sleepy"
_LOUD = "energetic epic powerful aggressive intense driving exciting loud heroic fierce"


@dataclass(frozen=True)
class Piece:
    """The composed music: parts to play, and the words for what was chosen."""

    sheet: Sheet
    parts: tuple[Part, ...]
    progressions: Mapping[str, str]


def compose(plan: Plan, style: Style, tags: Tags, number: int) -> Piece:
    """Writes a piece on `plan`. Every choice draws from its own stream of the seed `number`, apart from the others."""
    plan, seed = _shaded(plan, tags), f"{number} {style.name}"
    style = cast(style, tags, Random(f"{seed} cast"))
    key = choose_key(style, tags, Random(f"{seed} key"))
    themes = list(dict.fromkeys(p.name for p in plan.passages if p.name not in {"intro", "ending"})) or ["A"]
    chosen = harmony.choose(style, key, themes, Random(f"{seed} harmony"))
    spans = harmony.harmonise(plan, style, key, chosen, Random(f"{seed} chords"))
    sheet = Sheet(plan, style, key, tuple(spans))
    parts = _melodies(sheet, themes, seed) + _accompaniment(sheet, seed) + _percussion(sheet, seed)
    parts = [_loosened(sheet, part, Random(f"{seed} feel {place}")) for place, part in enumerate(parts) if part.notes]
    named = {theme: " | ".join(" ".join(bar) for bar in chosen[theme]) for theme in themes}
    return Piece(sheet, tuple(parts), named)


def choose_key(style: Style, tags: Tags, rng: Random) -> Key:
    """The key that the tags name; else any tonic, the mode following the moods and then the style's habit."""
    tonic, mode = rng.randrange(12), "minor" if rng.random() < style.minor else "major"
    if tags.tonic_and_mode is not None:
        tonic, mode = tags.tonic_and_mode
    else:
        leaning = _count(tags.moods, _DARK) - _count(tags.moods, _BRIGHT)
        mode = "minor" if leaning > 0 else "major" if leaning < 0 else mode
    return Key(tonic, mode, style.scale(mode))


def _count(words: Sequence[str] | str, stems: str) -> int:
    return sum(stem in word.lower() for word in words for stem in stems.split())


def _shaded(plan: Plan, tags: Tags) -> Plan:
    """The plan with its dynamics raised or lowered as the moods ask."""
    shift = 0.12 * (min(1, _count(tags.moods, _LOUD)) - min(1, _count(tags.moods, _QUIET)))
    passages = (replace(passage, energy=min(max(passage.energy + shift, 0.0), 1.0)) for passage in plan.passages)
    return replace(plan, energy=(plan.energy + shift).clip(0.0, 1.0), passages=tuple(passages))


def cast(style: Style, tags: Tags, rng: Random) -> Style:
    """The style with its players engaged: one program per layer, what the tags ask for in, what they rule out gone."""
    barred = parts_named(tags.negative)
    no_stems = {stem for stem, programs in barred if stem in {"drums", "bass"} and _whole(stem, programs)}
    banned = {program for _, programs in barred for program in programs}
    layers = []
    for layer in style.layers:
        free = [program for program in layer.programs if program not in banned]
        if free and layer.stem not in no_stems:
            layers.append(replace(layer, programs=(rng.choice(free),)))
    kit = style.kit
    for stem, programs in parts_named(tags.instruments):
        allowed = tuple(program for program in programs if program not in banned)
        if stem == "drums":
            kit = replace(kit or replace(FOLK.kit, level=-8), enters=0.0) if "drums" not in no_stems else None
        elif allowed and stem not in no_stems:
            _engage(layers, stem, allowed)
    if kit is not None and "drums" not in no_stems:
        kit = replace(kit, programs=(rng.choice(kit.programs),))
    accent = style.accent
    accent = replace(
        accent,
        low=None if accent.low in banned else accent.low,
        high=None if accent.high in banned else accent.high,
        drums=() if "drums" in no_stems else accent.drums,
    )
    gliss = "none" if style.transition == "gliss" and 46 in banned else style.transition
    return replace(
        style, layers=tuple(layers), kit=None if "drums" in no_stems else kit, accent=accent, transition=gliss
    )


def _whole(stem: str, programs: tuple[int, ...]) -> bool:
    """Whether a barred name means the whole section ("drums", "bass"), not one instrument of it ("timpani")."""
    return not programs if stem == "drums" else len(programs) > 4


def _engage(layers: list[Layer], stem: str, programs: tuple[int, ...]) -> None:
    """Makes one of `programs` be heard from the start: already there, or in place of another, or as a new layer."""
    for place, layer in enumerate(layers):
        if layer.programs[0] in programs:
            layers[place] = replace(layer, enters=0.0)
            return
    program = programs[0]
    _, low, high = INSTRUMENTS[program]
    for place, layer in enumerate(layers):
        if layer.stem == stem and layer.enters >= 0:
            low, high = max(low, layer.low), min(high, layer.high)
            if high - low < 16:
                _, low, high = INSTRUMENTS[program]
                high = min(high, low + 26)
            layers[place] = replace(layer, programs=(program,), enters=-1.0, low=low, high=high)
            return
    high = min(high, max(low, 52) + 24)
    layers.append(
        Layer(stem, "pad", (program,), enters=-1.0, level=-6, low=max(low, 52 if high > 70 else low), high=high)
    )


def _playing(sheet: Sheet, enters: float) -> list[tuple[int, Passage]]:
    return [(index, passage) for index, passage in sheet.passages() if passage.energy >= enters]


def _part(layer: Layer, notes: list[Note]) -> Part:
    program = layer.programs[0]
    name, low, high = INSTRUMENTS[program]
    kept = [note._replace(pitch=fold(note.pitch, low, high)) for note in notes if note.length > 0]
    return Part(name, layer.stem, program, level=layer.level, pan=layer.pan, notes=kept)


def _melodies(sheet: Sheet, themes: list[str], seed: str) -> list[Part]:
    ideas: dict[str, motif.Motif] = {}
    for theme in themes:
        idea = motif.invent(sheet.style, Random(f"{seed} motif {theme}"))
        ideas[theme] = idea
    parts: list[Part] = []
    silent: list[int] = []
    for layer in sheet.style.layers:
        rng = Random(f"{seed} {layer.kind}")
        if layer.kind == "lead":
            notes, silent = melody.lead(sheet, ideas, layer.low, layer.high, rng)
            parts.append(_part(layer, notes))
        elif layer.kind == "answer":
            parts.append(_part(layer, melody.answer(sheet, ideas, silent, layer.low, layer.high, layer.enters, rng)))
    return parts


def _accompaniment(sheet: Sheet, seed: str) -> list[Part]:
    """All players but the melodies. In the intro they come in one after another."""
    layers = [layer for layer in sheet.style.layers if layer.kind not in {"lead", "answer"}]
    parts: list[Part] = []
    for place, layer in enumerate(layers):
        player = Player(sheet, layer, Random(f"{seed} {layer.kind} {place}"))
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
    points += [(start + 0.35 * (end - start), 0.8), (end, 0.35)]
    return sorted(points)


def _percussion(sheet: Sheet, seed: str) -> list[Part]:
    style, rng = sheet.style, Random(f"{seed} drums")
    kit: Kit | None = style.kit
    parts: list[Part] = []
    struck, low, high = drums.accents(sheet, bool(style.accent.drums), float(max(3, style.meter)))
    if kit is not None:
        notes = drums.drum_part(sheet, kit, _playing(sheet, kit.enters), rng)
        name = KITS[kit.programs[0]]
        parts.append(Part(name, "drums", kit.programs[0], True, kit.level, notes=notes))
        extra = struck + (drums.lead_ins(sheet, style.transition) if style.transition in {"swell", "riser"} else [])
        parts.append(Part(f"{name} accents", "effects", kit.programs[0], True, kit.level - 3, notes=extra))
    if style.accent.low is not None:
        parts.append(_part(Layer("effects", "", (style.accent.low,), level=-3), low))
    if style.accent.high is not None:
        parts.append(_part(Layer("effects", "", (style.accent.high,), level=-8, pan=0.2), high))
    if style.transition == "gliss":
        parts.append(_part(Layer("effects", "", (46,), level=-9, pan=-0.3), drums.lead_ins(sheet, "gliss")))
    return parts


def _loosened(sheet: Sheet, part: Part, rng: Random) -> Part:
    """Swing and the small unevenness of hands; what falls on a cut or on the last chord stays exact."""
    style = sheet.style
    notes: list[Note] = []
    for note in part.notes:
        start, stop = _swung(note.beat, style), _swung(note.beat + note.length, style)
        exact = round(note.beat, 3) in sheet.hits or note.beat == sheet.last.start or part.stem == "effects"
        late = 0.0 if exact else min(max(rng.gauss(0.0, style.looseness), -0.04), 0.04)
        velocity = note.velocity if exact else min(max(round(note.velocity * rng.gauss(1.0, 0.05)), 1), 127)
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
