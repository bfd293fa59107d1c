"""Which chord sounds when: a progression for each theme, turned at the seams, and a real cadence at the end."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from v2m.sketch.compose.chords import Key, parse_chord
from v2m.sketch.compose.lead_sheet import ChordSpan
from v2m.sketch.plan.plan import Bar, Plan
from v2m.sketch.style import Style, parse_progression

Progression = list[list[str]]  # bars of chord symbols

# What may stand for a chord when its progression comes round again (shared tones, same function).
_SUBSTITUTES: Mapping[str, tuple[str, ...]] = {
    "I": ("vi", "Iadd9", "I/3"),
    "IV": ("ii", "IVadd9"),
    "V": ("Vsus4 V", "iii"),
    "vi": ("IV", "vi7"),
    "i": ("bVI", "iadd9"),
    "bVI": ("iv", "bVImaj7"),
    "bVII": ("v", "bVIIadd9"),
    "Imaj9": ("iii7", "I69"),
    "ii9": ("IVmaj7",),
    "i9": ("bIIImaj7",),
}
_TURNAROUNDS = {"major": ("V", "Vsus4 V", "IV V"), "minor": ("V", "bVII", "bVI bVII")}


def choose_progressions(style: Style, key: Key, themes: list[str], rng: Random) -> dict[str, Progression]:
    """A progression of its own for each theme letter; themes beyond the style's stock come back to the first."""
    stock = list(style.progressions[key.mode])
    rng.shuffle(stock)
    return {theme: list(parse_progression(stock[place % len(stock)])) for place, theme in enumerate(themes)}


def harmonize(
    plan: Plan, style: Style, key: Key, progressions: Mapping[str, Progression], rng: Random
) -> list[ChordSpan]:
    """The chords of every bar. The last bar holds the tonic; what leads there is one of the style's cadences.

    Every third time that a theme is heard it is set on the chords of another one.
    """
    bars: Progression = [[] for _ in plan.bars]
    names = list(progressions)
    for index, passage in enumerate(plan.sections):
        theme = names.index(passage.name) if passage.name in progressions else 0
        pattern = progressions[names[(theme + (passage.variant % 3 == 2)) % len(names)]]
        for place in range(passage.last - passage.first):
            symbols = pattern[place % len(pattern)]
            if place >= len(pattern) and place % len(pattern) and rng.random() < 0.3:
                symbols = rng.choice(_SUBSTITUTES.get(symbols[0], (symbols[0],))).split() + symbols[1:]
            bars[passage.first + place] = symbols
        following = plan.sections[index + 1].name if index + 1 < len(plan.sections) else passage.name
        turns = following != passage.name and passage.last - passage.first >= 4 and style.avoid_parallels
        if turns and rng.random() < 0.7:
            bars[passage.last - 1] = rng.choice(_TURNAROUNDS[key.mode]).split()
    _set_cadence(bars, list(parse_progression(rng.choice(style.cadences[key.mode]))))
    return [span for number, bar in enumerate(plan.bars) for span in _chord_spans(bar, number, bars[number], key)]


def _set_cadence(bars: Progression, cadence: Progression) -> None:
    """Lays `cadence` over the last bars; a short piece keeps at least its first bar as it is."""
    room = max(1, len(bars) - 1)
    tail = cadence[-room:]
    bars[-len(tail) :] = tail


def _chord_spans(bar: Bar, number: int, symbols: list[str], key: Key) -> list[ChordSpan]:
    """The chords of one bar on whole beats, the earlier ones longer; a bar too short for all loses the middle."""
    if len(symbols) > bar.beats:
        symbols = [symbols[0], symbols[-1]]
    bounds = [-(-bar.beats * place // len(symbols)) for place in range(len(symbols) + 1)]
    return [
        ChordSpan(bar.start + low, high - low, parse_chord(symbol, key.tonic), number)
        for symbol, low, high in zip(symbols, bounds, bounds[1:], strict=False)
    ]
