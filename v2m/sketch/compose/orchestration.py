"""What the tags change in a style: its key, its dynamics, and who plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from v2m.core.types import Tags
from v2m.sketch.compose.chords import Key
from v2m.sketch.instruments import INSTRUMENTS, find_instruments
from v2m.sketch.plan.plan import Plan
from v2m.sketch.style import Layer, Style
from v2m.sketch.styles.percussion import PERCUSSION

# Stems of mood words. They lean to minor, to major, and lower or raise the dynamics.
_DARK = (
    "sad",
    "dark",
    "melanchol",
    "tense",
    "somb",
    "myster",
    "ominous",
    "brood",
    "angry",
    "lonel",
    "nostalg",
    "dramatic",
)
_BRIGHT = (
    "happy",
    "bright",
    "cheer",
    "joy",
    "playful",
    "uplift",
    "sunny",
    "hope",
    "warm",
    "carefree",
    "triumph",
    "optimis",
)
_QUIET = ("calm", "gentle", "soft", "peace", "quiet", "intimate", "tender", "delicate", "seren", "relax", "sleep")
_LOUD = ("energetic", "epic", "powerful", "aggressive", "intense", "driving", "excit", "loud", "heroic", "fierce")

HARP_PROGRAM = 46  # the program that plays a glissando
MIN_REGISTER = 17  # semitones
ALWAYS = -1.0  # what `enters` is set to for an instrument of the tags, below any energy


def choose_key(style: Style, tags: Tags, rng: Random) -> Key:
    """The key that the tags name; else any tonic, the mode following the moods and then the style's habit."""
    tonic, mode = rng.randrange(12), "minor" if rng.random() < style.minor_probability else "major"
    if tags.tonic_and_mode is not None:
        tonic, mode = tags.tonic_and_mode
    else:
        leaning = _count_stems(tags.moods, _DARK) - _count_stems(tags.moods, _BRIGHT)
        mode = "minor" if leaning > 0 else "major" if leaning < 0 else mode
    return Key(tonic, mode, style.scale_name(mode))


def _count_stems(words: Sequence[str] | str, stems: Sequence[str]) -> int:
    return sum(stem in word.lower() for word in words for stem in stems)


def apply_mood_dynamics(plan: Plan, tags: Tags) -> Plan:
    """The plan with its dynamics raised or lowered as the moods ask."""
    shift = 0.12 * (min(1, _count_stems(tags.moods, _LOUD)) - min(1, _count_stems(tags.moods, _QUIET)))
    passages = (replace(passage, energy=min(max(passage.energy + shift, 0.0), 1.0)) for passage in plan.sections)
    return replace(plan, energy=(plan.energy + shift).clip(0.0, 1.0), passages=tuple(passages))


def orchestrate(style: Style, tags: Tags, rng: Random) -> Style:
    """The style with its players engaged: one program per layer, what the tags ask for in, what they rule out gone."""
    barred = find_instruments(tags.negative)
    no_drums = any(stem == "drums" and not programs for stem, programs in barred)
    banned = {program for _, programs in barred for program in programs}
    layers: list[Layer] = []
    for layer in style.layers:
        free = [program for program in layer.programs if program not in banned]
        taken = {other.programs[0] for other in layers if other.stem != layer.stem}
        if free:
            layers.append(
                _fit_register(layer, rng.choice([program for program in free if program not in taken] or free))
            )
    kit = style.kit
    for stem, programs in find_instruments(tags.instruments):
        allowed = tuple(program for program in programs if program not in banned)
        if stem == "drums":
            kit = replace(kit or PERCUSSION, min_energy=ALWAYS)
        elif allowed:
            _add_instrument(layers, stem, allowed)
    accent = replace(
        style.accent,
        low_program=None if style.accent.low_program in banned else style.accent.low_program,
        high_program=None if style.accent.high_program in banned else style.accent.high_program,
        drums=() if no_drums else style.accent.drums,
    )
    return replace(
        style,
        layers=tuple(layers),
        kit=None if kit is None or no_drums else replace(kit, programs=(rng.choice(kit.programs),)),
        accent=accent,
        transition="none" if style.transition == "gliss" and HARP_PROGRAM in banned else style.transition,
    )


def _fit_register(layer: Layer, program: int) -> Layer:
    """The layer played by `program`, in what the instrument has of its register, widened where that is too little."""
    _, lowest, highest = INSTRUMENTS[program]
    low, high = max(layer.low, lowest), min(layer.high, highest)
    if high - low < MIN_REGISTER:
        high = min(highest, max(high, low + MIN_REGISTER))
        low = max(lowest, min(low, high - MIN_REGISTER))
    return replace(layer, programs=(program,), low=low, high=high)


def _add_instrument(layers: list[Layer], stem: str, programs: tuple[int, ...]) -> None:
    """Makes one of `programs` be heard throughout: already there, in place of another, or as a player more."""
    for place, layer in enumerate(layers):
        if layer.programs[0] in programs:
            layers[place] = replace(layer, min_energy=ALWAYS)
            return
    for place, layer in enumerate(layers):
        if layer.stem == stem and layer.min_energy != ALWAYS:
            layers[place] = replace(_fit_register(layer, programs[0]), min_energy=ALWAYS)
            return
    layers.append(_fit_register(Layer(stem, "pad", programs, level_db=-6, low=52, high=76), programs[0]))
    layers[-1] = replace(layers[-1], min_energy=ALWAYS)
