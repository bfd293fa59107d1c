"""Harmony: a progression for each theme, turnarounds between sections, and a cadence at the end."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from v2m.sketch.compose.chords import Key, parse_chord
from v2m.sketch.compose.lead_sheet import ChordSpan
from v2m.sketch.plan.planner import Bar, Plan
from v2m.sketch.style import Style, parse_progression

Progression = list[list[str]]  # bars of chord symbols

# Substitutes for a chord when its progression is repeated (shared tones, same function).
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
SUBSTITUTION_PROBABILITY, TURNAROUND_PROBABILITY = 0.3, 0.7


def choose_progressions(style: Style, key: Key, themes: list[str], rng: Random) -> dict[str, Progression]:
    """Return a progression for each theme letter; themes beyond the style's stock begin it again."""
    stock = list(style.progressions[key.mode])
    rng.shuffle(stock)
    return {theme: list(parse_progression(stock[place % len(stock)])) for place, theme in enumerate(themes)}


def harmonize(
    plan: Plan, style: Style, key: Key, progressions: Mapping[str, Progression], rng: Random
) -> list[ChordSpan]:
    """Return the chords of every bar, ending with one of the style's cadences and the tonic.

    Every third statement of a theme gets the chords of another one.
    """
    bars: Progression = [[] for _ in plan.bars]
    names = list(progressions)
    for index, section in enumerate(plan.sections):
        theme = names.index(section.name) if section.name in progressions else 0
        pattern = progressions[names[(theme + (section.variant % 3 == 2)) % len(names)]]
        for place in range(section.last - section.first):
            symbols = pattern[place % len(pattern)]
            if place >= len(pattern) and place % len(pattern) and rng.random() < SUBSTITUTION_PROBABILITY:
                symbols = rng.choice(_SUBSTITUTES.get(symbols[0], (symbols[0],))).split() + symbols[1:]
            bars[section.first + place] = symbols
        following = plan.sections[index + 1].name if index + 1 < len(plan.sections) else section.name
        may_turn = following != section.name and section.last - section.first >= 4 and style.common_practice
        if may_turn and rng.random() < TURNAROUND_PROBABILITY:
            bars[section.last - 1] = rng.choice(_TURNAROUNDS[key.mode]).split()
    _set_cadence(bars, list(parse_progression(rng.choice(style.cadences[key.mode]))))
    return [span for number, bar in enumerate(plan.bars) for span in _chord_spans(bar, number, bars[number], key)]


def _set_cadence(bars: Progression, cadence: Progression) -> None:
    """Replace the last bars by `cadence`; a short piece keeps at least its first bar."""
    end = cadence[-max(1, len(bars) - 1) :]
    bars[-len(end) :] = end


def _chord_spans(bar: Bar, number: int, symbols: list[str], key: Key) -> list[ChordSpan]:
    """Place the chords of one bar on whole beats, earlier ones longer; too short a bar keeps the first and last."""
    if len(symbols) > bar.beats:
        symbols = [symbols[0], symbols[-1]]
    bounds = [-(-bar.beats * place // len(symbols)) for place in range(len(symbols) + 1)]
    return [
        ChordSpan(bar.start + low, high - low, parse_chord(symbol, key.tonic), number)
        for symbol, low, high in zip(symbols, bounds, bounds[1:], strict=False)
    ]
