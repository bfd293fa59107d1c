"""Chords and scales as pitch classes, parsed from Roman numerals.

Numerals are read against the major scale of the tonic, whatever the mode, so that a borrowed chord is spelled the same
everywhere: the minor key's chords are i ii° bIII iv v bVI bVII. Upper case has a major third, lower case a minor one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Chord:
    """A chord in a key: pitch classes, root first, and the scale degree (0–6) on which each is spelled."""

    symbol: str
    pitch_classes: tuple[int, ...]
    degrees: tuple[int, ...]
    bass: int

    @property
    def root(self) -> int:
        """Pitch class of the root."""
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
        """Return the MIDI pitch of `step` (7 to the octave; step 35 is the tonic in C4–B4), bent to `chord`'s tones.

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
