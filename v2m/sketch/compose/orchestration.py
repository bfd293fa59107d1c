"""Orchestration: key, dynamics and instruments of a piece, from its style and tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from v2m.core.types import Tags
from v2m.sketch.compose.harmony import Key
from v2m.sketch.instruments import INSTRUMENTS, find_instruments
from v2m.sketch.plan.planner import Plan
from v2m.sketch.style import Kit, Layer, Style

# Stems of mood words that ask for minor, for major, for softer and for louder music.
_DARK = "sad|dark|melanchol|tense|somb|myster|ominous|brood|angry|lonel|nostalg|dramatic"
_BRIGHT = "happy|bright|cheer|joy|playful|uplift|sunny|hope|warm|carefree|triumph|optimis"
_QUIET = "calm|gentle|soft|peace|quiet|intimate|tender|delicate|seren|relax|sleep"
_LOUD = "energetic|epic|powerful|aggressive|intense|driving|excit|loud|heroic|fierce"

HARP_PROGRAM = 46  # plays a glissando
MIN_REGISTER = 17  # semitones
MOOD_ENERGY = 0.12  # by which moods raise or lower the energy
ALWAYS = -1.0  # `min_energy` of an instrument that the tags name: below any energy

# Plays in styles without drums where the tags name some.
HAND_PERCUSSION = Kit(
    (8, 0),
    (
        {"shaker": "5.3.4.3.5.3.4.3."},
        {"kick": "7.......7.......", "tambourine": "....5.......5...", "shaker": "5.3.4.3.5.3.4.3."},
        {
            "kick": "8.....5.8.......",
            "snare": "....6.......6..3",
            "tambourine": "..4...4...4...4.",
            "shaker": "5343534353435343",
        },
    ),
    (
        {"snare": "........4.4.5.66", "kick": "........7......."},
        {"low tom": "........6...6.7.", "kick": "........7...7..."},
    ),
    min_energy=0.4,
    level_db=-9,
)


def choose_key(style: Style, tags: Tags, rng: Random) -> Key:
    """Return the tags' key, or else any tonic, with the mode of the moods or of the style."""
    tonic, mode = rng.randrange(12), "minor" if rng.random() < style.minor_probability else "major"
    if tags.tonic_and_mode is not None:
        tonic, mode = tags.tonic_and_mode
    else:
        minor_votes = _count_stems(tags.moods, _DARK) - _count_stems(tags.moods, _BRIGHT)
        mode = "minor" if minor_votes > 0 else "major" if minor_votes < 0 else mode
    return Key(tonic, mode, style.scales.get(mode, mode))


def _count_stems(words: Sequence[str], stems: str) -> int:
    return sum(stem in word.lower() for word in words for stem in stems.split("|"))


def apply_mood_dynamics(plan: Plan, tags: Tags) -> Plan:
    """Return the plan with its dynamics raised or lowered by the moods."""
    shift = MOOD_ENERGY * (min(1, _count_stems(tags.moods, _LOUD)) - min(1, _count_stems(tags.moods, _QUIET)))
    sections = (replace(section, energy=min(max(section.energy + shift, 0.0), 1.0)) for section in plan.sections)
    return replace(plan, energy=(plan.energy + shift).clip(0.0, 1.0), sections=tuple(sections))


def orchestrate(style: Style, tags: Tags, rng: Random) -> Style:
    """Choose a program per layer, with the instruments that the tags name, less those they exclude."""
    excluded = find_instruments(tags.negative)
    no_drums = any(stem == "drums" and not programs for stem, programs in excluded)
    banned = {program for _, programs in excluded for program in programs}
    layers: list[Layer] = []
    for layer in style.layers:
        allowed = [program for program in layer.programs if program not in banned]
        used = {other.programs[0] for other in layers if other.stem != layer.stem}
        if allowed:
            unused = [program for program in allowed if program not in used]
            layers.append(_fit_register(layer, rng.choice(unused or allowed)))
    kit = style.kit
    for stem, programs in find_instruments(tags.instruments):
        allowed = [program for program in programs if program not in banned]
        if stem == "drums":
            kit = replace(kit or HAND_PERCUSSION, min_energy=ALWAYS)
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
    """Return the layer played by `program`, in its register as far as the instrument has it."""
    _, lowest, highest = INSTRUMENTS[program]
    low, high = max(layer.low, lowest), min(layer.high, highest)
    if high - low < MIN_REGISTER:
        high = min(highest, max(high, low + MIN_REGISTER))
        low = max(lowest, min(low, high - MIN_REGISTER))
    return replace(layer, programs=(program,), low=low, high=high)


def _add_instrument(layers: list[Layer], stem: str, programs: Sequence[int]) -> None:
    """Let one of `programs` play throughout: in its own layer, in one of the same stem, or in a new one."""
    for index, layer in enumerate(layers):
        if layer.programs[0] in programs:
            layers[index] = replace(layer, min_energy=ALWAYS)
            return
    for index, layer in enumerate(layers):
        if layer.stem == stem and layer.min_energy != ALWAYS:
            layers[index] = replace(_fit_register(layer, programs[0]), min_energy=ALWAYS)
            return
    layer = Layer(stem, "pad", tuple(programs), level_db=-6, low=52, high=76, min_energy=ALWAYS)
    layers.append(_fit_register(layer, programs[0]))
