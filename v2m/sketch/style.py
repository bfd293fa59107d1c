"""The data model of a style. The styles themselves are in `styles/`, by family.

Rhythms are strings over one bar of the style's meter; `|` separates the bars of a longer figure and blanks are ignored.
A digit 1–9 is an attack of that loudness, `-` holds the tone, `.` is a rest. The number of steps in a beat follows from
the length: sixteen signs in 4/4 are sixteenths, twelve are triplets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple


class Attack(NamedTuple):
    """One attack of a rhythm: `onset` and `length` in beats from the bar line, `loudness` 1–9."""

    onset: float
    length: float
    loudness: int


@lru_cache(maxsize=1024)
def parse_rhythm(rhythm: str, beats_per_bar: int, bar_index: int, num_beats: int) -> tuple[Attack, ...]:
    """Return the attacks of `rhythm` in bar `bar_index`, `num_beats` long instead of `beats_per_bar`.

    A shorter bar loses the end of the pattern, a longer one begins it again.
    """
    bars = rhythm.replace(" ", "").split("|")
    signs = bars[bar_index % len(bars)]
    assert len(signs) % beats_per_bar == 0, f"{signs!r} does not divide into {beats_per_bar} beats"
    steps = len(signs) // beats_per_bar
    signs = (signs * (num_beats // beats_per_bar + 1))[: num_beats * steps]
    attacks: list[Attack] = []
    for index, sign in enumerate(signs):
        if sign.isdigit():
            num_held = len(signs[index + 1 :]) - len(signs[index + 1 :].lstrip("-"))
            attacks.append(Attack(index / steps, (1 + num_held) / steps, int(sign)))
    return tuple(attacks)


@dataclass(frozen=True)
class Figure:
    """A pattern of one player.

    `order`: the tones of its attacks in turn, for an arpeggio as chord tones counted from 0, for a bass as r root,
    3 third, 5 fifth, o octave, a approach to the next root; unused by other kinds.
    """

    rhythm: str
    order: str = ""


def pattern_index(count: int, energy: float, offset: int = 0) -> int:
    """Return the index, of `count` patterns by rising energy, for `energy` 0–1; `offset` ±1: a neighbor."""
    default = min(int(energy * count), count - 1)
    return next((index for index in (default + offset, default - offset) if 0 <= index < count), default)


@dataclass(frozen=True)
class Layer:
    """One player of a style.

    `programs`: General MIDI programs to choose from. `figures` are ordered by rising energy. It plays in sections whose
    energy is at least `min_energy`. `low`–`high`: register in MIDI pitches. `level_db`: against the lead at equal
    loudness. `pan` −1 to 1. `voices`: tones of a chord. `gate`: sounding share of each note.
    """

    stem: str
    kind: str  # pad, comp, strum, power, arp, bass, walk, lead, answer
    programs: tuple[int, ...]
    figures: tuple[Figure, ...] = ()
    min_energy: float = 0.0
    level_db: float = 0.0
    low: int = 48
    high: int = 76
    pan: float = 0.0
    voices: int = 3
    gate: float = 0.95

    def with_figures(self, *figures: Figure) -> Layer:
        """Return the layer with `figures`."""
        return replace(self, figures=figures)


Groove = Mapping[str, str]  # drum → rhythm


@dataclass(frozen=True)
class Kit:
    """The drums: `grooves` by rising energy; the last two beats of a fill lead into a new section."""

    programs: tuple[int, ...]
    grooves: tuple[Groove, ...]
    fills: tuple[Groove, ...]
    min_energy: float = 0.3
    level_db: float = -1.0


@dataclass(frozen=True)
class Accent:
    """The accent on a strong cut, all at once: drums of the kit, and a low and a high pitched program."""

    drums: tuple[str, ...] = ()
    low_program: int | None = None
    high_program: int | None = None


@dataclass(frozen=True)
class Reverb:
    """The reverb: `rt60_s` seconds to −60 dB at low frequencies; `damping` of high ones, levels 0–1."""

    rt60_s: float
    damping: float
    predelay_ms: float
    wet_level: float


@dataclass(frozen=True)
class Style:
    """All data of a style. Probabilities are 0–1; `tempo` is lowest, usual, highest.

    `steadiness`: see `plan_piece`. `progressions` and `cadences`: per mode, bars separated by `|`, chords of a bar by
    blanks; a cadence ends the piece. `rhythm_cells`: one-bar rhythms of the melody. `transition`: effect before a
    louder section besides the drum fill. `common_practice`: parallel fifths and octaves are avoided, and sections end
    in turnarounds.
    """

    name: str
    tempo: tuple[float, float, float]
    steadiness: float
    layers: tuple[Layer, ...]
    progressions: Mapping[str, tuple[str, ...]]
    cadences: Mapping[str, tuple[str, ...]]
    rhythm_cells: tuple[str, ...]
    accent: Accent
    reverb: Reverb
    transition: str  # swell, riser, gliss, none
    kit: Kit | None = None
    beats_per_bar: int = 4
    minor_probability: float = 0.5
    scales: Mapping[str, str] = field(default_factory=dict)  # mode → a name in `harmony.SCALES`, else the mode itself
    swing: float = 0.5  # position of the off-beat in its unit: 0.5 straight, 0.67 triplets
    swing_unit: float = 1.0  # beats
    # weights 0–1 of the accents off the beat that cuts may meet, by their position in a beat
    accent_weights: Mapping[float, float] = field(default_factory=lambda: {0.5: 0.6, 0.25: 0.25, 0.75: 0.25})
    leap_probability: float = 0.15  # of the melody's next tone
    rest_probability: float = 0.15  # that the lead leaves a two-bar unit to the answer
    timing_std_beats: float = 0.008  # standard deviation of the players' timing
    common_practice: bool = False
    rootless_voicings: bool = False  # chords leave the root to the bass
    sidechain_depth: float = 0.0  # ducking of the pads on each beat with drums, 0–1
    lowpass_hz: float = 20000.0  # of the whole mix
    loudness_share: float = 0.5  # of the difference in loudness between sections, in dB, that the mix keeps
    treble_db: float = 0.0  # gain of the whole mix high above 1 kHz, as far listeners have it from an orchestra
    wow_cents: float = 0.0  # pitch deviation of a worn tape
    vinyl_noise: float = 0.0  # level of hiss and crackle, 0–1

    def swing_beat(self, beat: float) -> float:
        """Move the off-beat of each swing unit from its middle to the style's share of the unit."""
        unit, part = divmod(beat / self.swing_unit + 1e-9, 1.0)
        swung = part / 0.5 * self.swing if part < 0.5 else self.swing + (part - 0.5) / 0.5 * (1 - self.swing)
        return (unit + swung) * self.swing_unit


def parse_progression(progression: str) -> Iterator[list[str]]:
    """Yield the chord symbols of each bar."""
    return (bar.split() for bar in progression.split("|"))
