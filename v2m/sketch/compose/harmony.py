"""Harmony: keys and chords, a progression for each theme, and the voicing of each chord.

Chords are pitch classes, parsed from Roman numerals. Numerals are read against the major scale of the tonic, whatever
the mode, so that a borrowed chord is spelled the same everywhere: the minor key's chords are i ii° bIII iv v bVI bVII.
Upper case has a major third, lower case a minor one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from random import Random
from typing import NamedTuple

from v2m.sketch.instruments import fit_octave
from v2m.sketch.plan.planner import Bar, Plan
from v2m.sketch.style import Layer, Style, parse_progression

Progression = list[list[str]]  # bars of chord symbols
Voicing = tuple[int, ...]  # MIDI pitches, rising

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}
NOTE_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

_NUMERAL = re.compile(r"^([b#]?)([IViv]+)([^/]*)(?:/([357]))?$")
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")
_FIXED_INTERVALS = {
    "°": (0, 3, 6),
    "ø7": (0, 3, 6, 10),
    "°7": (0, 3, 6, 9),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "7sus4": (0, 5, 7, 10),
    "5": (0, 7),
}
_ADDED_INTERVALS = {
    "": (),
    "6": (9,),
    "7": (10,),
    "maj7": (11,),
    "9": (10, 14),
    "maj9": (11, 14),
    "add9": (14,),
    "69": (9, 14),
    "7b9": (10, 13),
    "13": (10, 21),
}
_DEGREE_OFFSETS = {0: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 4, 7: 4, 9: 5, 10: 6, 11: 6, 13: 1, 14: 1, 21: 5}

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

# Costs, in semitones of a voice's movement; hand-tuned, no benchmark measures voice leading.
MISSING_TONE_COST = 3.0  # of each essential tone that is left out
CLASH_COST = 8.0  # of a semitone or minor ninth against another player
PARALLEL_COST = 8.0  # of parallel fifths or octaves
MAX_GAP = 9  # semitones between neighboring voices: a sixth


@dataclass(frozen=True)
class Chord:
    """A chord in a key: pitch classes, root first, and the scale degree (0–6) on which each is spelled."""

    symbol: str
    pitch_classes: tuple[int, ...]
    degrees: tuple[int, ...]
    bass: int

    @property
    def root(self) -> int:
        return self.pitch_classes[0]

    @property
    def essential_tones(self) -> tuple[int, ...]:
        """Pitch classes that identify the chord: all but the fifth, once there are more than three."""
        if len(self.pitch_classes) <= 3:
            return self.pitch_classes
        return tuple(pc for pc in self.pitch_classes if (pc - self.root) % 12 != 7)


def parse_chord(symbol: str, tonic: int) -> Chord:
    """Parse a Roman numeral such as "bVImaj7" or "V/3" over `tonic` (pitch class)."""
    match = _NUMERAL.match(symbol)
    assert match is not None, f"{symbol!r} is not a Roman numeral"
    accidental, numeral, suffix, inversion = match.groups()
    degree = _NUMERALS.index(numeral.upper())
    root = tonic + SCALES["major"][degree] + {"b": -1, "#": 1, "": 0}[accidental]
    third = 4 if numeral.isupper() else 3
    intervals = _FIXED_INTERVALS[suffix] if suffix in _FIXED_INTERVALS else (0, third, 7, *_ADDED_INTERVALS[suffix])
    pitch_classes = tuple((root + interval) % 12 for interval in intervals)
    degrees = tuple((degree + _DEGREE_OFFSETS[interval]) % 7 for interval in intervals)
    bass = pitch_classes[{"3": 1, "5": 2, "7": 3}[inversion]] if inversion else pitch_classes[0]
    return Chord(symbol, pitch_classes, degrees, bass)


@dataclass(frozen=True)
class Key:
    """Tonic pitch class, "major" or "minor", and a scale of that mode (a name in `SCALES`)."""

    tonic: int
    mode: str
    scale: str

    @property
    def name(self) -> str:
        """Tonic and mode, as in "F# minor"."""
        return f"{NOTE_NAMES[self.tonic]} {self.mode}"

    def pitch(self, step: int, chord: Chord | None = None) -> int:
        """Return the MIDI pitch of `step` (7 an octave; 35 is the tonic in C4–B4), bent to `chord`.

        A chord tone outside the scale takes the place of the scale's own tone on its degree, as the leading tone does
        over a dominant in minor.
        """
        octave, degree = divmod(step, 7)
        pitch = 12 * octave + self.tonic + SCALES[self.scale][degree]
        if chord is not None and degree in chord.degrees:
            target = chord.pitch_classes[chord.degrees.index(degree)]
            pitch += (target - pitch + 6) % 12 - 6
        return pitch

    def nearest_step(self, pitch: float) -> int:
        """Return the scale step whose pitch is nearest to `pitch`."""
        guess = round((pitch - self.tonic) * 7 / 12)
        return min(range(guess - 2, guess + 3), key=lambda step: abs(self.pitch(step) - pitch))


class ChordSpan(NamedTuple):
    """A chord from beat `start` on for `beats` beats, within bar number `bar`."""

    start: float
    beats: float
    chord: Chord
    bar: int


def choose_progressions(style: Style, key: Key, themes: list[str], rng: Random) -> dict[str, Progression]:
    """Return a progression for each theme letter; themes beyond the style's stock begin it again."""
    stock = list(style.progressions[key.mode])
    rng.shuffle(stock)
    return {theme: list(parse_progression(stock[index % len(stock)])) for index, theme in enumerate(themes)}


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
        for position in range(section.last - section.first):
            symbols = pattern[position % len(pattern)]
            if position >= len(pattern) and position % len(pattern) and rng.random() < SUBSTITUTION_PROBABILITY:
                symbols = rng.choice(_SUBSTITUTES.get(symbols[0], (symbols[0],))).split() + symbols[1:]
            bars[section.first + position] = symbols
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
    """Place the chords of a bar on whole beats; one with too few beats keeps the first and last."""
    if len(symbols) > bar.beats:
        symbols = [symbols[0], symbols[-1]]
    bounds = [-(-bar.beats * index // len(symbols)) for index in range(len(symbols) + 1)]
    return [
        ChordSpan(bar.start + low, high - low, parse_chord(symbol, key.tonic), number)
        for symbol, low, high in zip(symbols, bounds, bounds[1:], strict=False)
    ]


@lru_cache(maxsize=4096)
def candidate_voicings(chord: Chord, voices: int, low: int, high: int, rootless: bool) -> tuple[Voicing, ...]:
    """Return all voicings of `chord` in [low, high] without wide gaps or low seconds."""
    tones = chord.pitch_classes[1:] if rootless and len(chord.pitch_classes) > voices else chord.pitch_classes
    pitches = [pitch for pitch in range(low, high + 1) if pitch % 12 in tones]
    return tuple(
        voicing
        for voicing in combinations(pitches, min(voices, len(pitches)))
        if all(
            3 <= upper - lower <= MAX_GAP or (upper - lower == 2 and lower > 55) for lower, upper in pairwise(voicing)
        )
    )


def mean_movement(before: Voicing, after: Voicing) -> float:
    """Return the mean movement of a voice in semitones, voices matched from the top."""
    pairs = list(zip(reversed(before), reversed(after), strict=False))
    return sum(abs(a - b) for a, b in pairs) / max(1, len(pairs))


def has_parallels(before: Voicing, after: Voicing) -> bool:
    """Return whether the outer voices move in parallel fifths or octaves."""
    first, second = (before[-1] - before[0]) % 12, (after[-1] - after[0]) % 12
    return first == second and first in {0, 7} and before[0] != after[0]


def choose_voicing(
    chord: Chord, previous: Voicing | None, layer: Layer, style: Style, occupied: Collection[int] = ()
) -> Voicing:
    """Choose the voicing of `chord` in the layer's register that moves least from `previous`.

    Seconds above the bass are avoided, and semitones and minor ninths against `occupied`, pitches of other players.
    """
    voices, low, high, rootless = layer.voices, layer.low, layer.high, style.rootless_voicings
    bass, center = fit_octave(chord.bass, 33, 44), (low + high) / 2
    essential = set(chord.essential_tones)
    if rootless and len(chord.pitch_classes) > voices:
        essential.discard(chord.root)
    clashing = {pitch + interval for pitch in occupied for interval in (-13, -1, 1, 13)}
    choices = candidate_voicings(chord, voices, low, high, rootless)
    while not choices:  # a narrow register holds too few tones of an open chord
        low, voices = low - 2, max(2, voices - 1)
        choices = candidate_voicings(chord, voices, low, high, rootless)

    def cost(voicing: Voicing) -> tuple[float, Voicing]:
        tones = {pitch % 12 for pitch in voicing}
        num_doubled = voices - len(tones)
        off_center = abs(sum(voicing) / len(voicing) - center)
        total = 0.15 * off_center + 0.5 * num_doubled
        total += 2.0 * any(0 < pitch - bass < 3 for pitch in voicing)
        total += MISSING_TONE_COST * len(essential - tones)
        total += CLASH_COST * len(clashing.intersection(voicing))
        if previous is not None:
            total += 1.6 * mean_movement(previous, voicing)
            total += PARALLEL_COST * (style.common_practice and has_parallels(previous, voicing))
        else:
            total += 0.4 * off_center
        return total, voicing

    return min(choices, key=cost)
