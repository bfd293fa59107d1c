"""What a style is: data that the arranger reads. The styles themselves are one file each in `styles/`.

Rhythms are strings over one bar of the style's meter; `|` parts the bars of a longer figure and blanks only help the
eye. A digit 1–9 attacks that loud, `-` holds the sound, `.` is a rest. The number of steps in a beat follows from the
length: sixteen signs in 4/4 are sixteenths, twelve are triplets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


class Attack(NamedTuple):
    """One attack of a rhythm: `onset` and `length` in beats from the bar line, `loudness` 1–9."""

    onset: float
    length: float
    loudness: int


@lru_cache(maxsize=1024)
def parse_rhythm(rhythm: str, beats_per_bar: int, bar_index: int, num_beats: int) -> tuple[Attack, ...]:
    """The attacks of `rhythm` in its bar number `bar` when that bar lasts `beats` instead of `meter`.

    A shorter bar loses the end of the pattern, a longer one begins it again.
    """
    bars = rhythm.replace(" ", "").split("|")
    signs = bars[bar_index % len(bars)]
    assert len(signs) % beats_per_bar == 0, f"{signs!r} does not divide into {beats_per_bar} beats"
    steps = len(signs) // beats_per_bar
    signs = (signs * (num_beats // beats_per_bar + 1))[: num_beats * steps]
    found: list[Attack] = []
    for place, sign in enumerate(signs):
        if sign.isdigit():
            held = len(signs[place + 1 :]) - len(signs[place + 1 :].lstrip("-"))
            found.append(Attack(place / steps, (1 + held) / steps, int(sign)))
    return tuple(found)


@dataclass(frozen=True)
class Figure:
    """A pattern. `order` says what each attack in turn plays: chord tones counted from 0 for an arpeggio; r root,
    3 third, 5 fifth, o octave, a approach to the next root for a bass; unused by the others."""

    rhythm: str
    order: str = ""


def pattern_index(count: int, energy: float, offset: int = 0) -> int:
    """Which of `count` patterns, ordered by rising energy, is for `energy` 0–1; with a `turn` of ±1 its neighbour."""
    usual = min(int(energy * count), count - 1)
    return next((place for place in (usual + offset, usual - offset) if 0 <= place < count), usual)


@dataclass(frozen=True)
class Layer:
    """One player. `kind` names the writer; `figures` are ordered by rising energy; it plays in passages whose energy
    is at least `enters`. `low`–`high`: MIDI register. `level`: dB against the lead at equal loudness. `pan` −1 to 1."""

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
    gate: float = 0.95  # sounding share of each note


Groove = Mapping[str, str]  # drum → rhythm


@dataclass(frozen=True)
class Kit:
    """The drums: `grooves` by rising energy; a fill covers the last two beats (its last) before a new passage."""

    programs: tuple[int, ...]
    grooves: tuple[Groove, ...]
    fills: tuple[Groove, ...]
    min_energy: float = 0.3
    level_db: float = -1.0


@dataclass(frozen=True)
class Accent:
    """What marks a strong cut, all struck at once: drums of the kit, and low and high pitched programs."""

    drums: tuple[str, ...] = ()
    low_program: int | None = None
    high_program: int | None = None


@dataclass(frozen=True)
class Reverb:
    """The hall: `seconds` to −60 dB in the lows, `damping` 0–1 of the highs, `predelay` in ms, `wet` level 0–1."""

    rt60_s: float
    damping: float
    predelay_ms: float
    wet_level: float


@dataclass(frozen=True)
class Style:
    """Everything a piece of this style may be. Chances are 0–1; `tempo` is lowest, usual, highest.

    `progressions` and `cadences`: bars parted by `|`, chords of a bar by blanks, per mode. A cadence is what leads to
    the last chord. `cells`: one-bar melodic rhythms. `restless`: the chance of a leap in the melody. `looseness`:
    standard deviation of the players' timing, in beats. `strict`: parallel fifths are avoided.
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
    transition: str  # swell, riser, gliss, none: how the next passage is announced besides the drum fill
    kit: Kit | None = None
    beats_per_bar: int = 4
    minor_probability: float = 0.5
    scales: Mapping[str, str] | None = None
    swing: float = 0.5  # where the off-beat lies in its unit: 0.5 straight, 0.67 triplets
    swing_unit: float = 1.0
    leap_probability: float = 0.15
    rest_probability: float = 0.15  # chance that the lead leaves a unit to the answer
    timing_std_beats: float = 0.008
    avoid_parallels: bool = False
    rootless_voicings: bool = False  # chords leave the root to the bass
    sidechain_depth: float = 0.0  # how far the pads duck on each beat that the drums play, 0–1
    lowpass_hz: float = 20000.0  # Hz above which the whole band rolls off
    wow_cents: float = 0.0  # cents by which a worn tape wavers
    vinyl_noise: float = 0.0  # of a record, 0–1

    def scale_name(self, mode: str) -> str:
        return (self.scales or {}).get(mode, mode)


def parse_progression(progression: str) -> Iterator[list[str]]:
    """The chord symbols of each bar."""
    return (bar.split() for bar in progression.split("|"))
