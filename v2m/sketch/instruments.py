"""General MIDI instruments: names, ranges, and stems.

Ranges are the comfortable part of each instrument's compass (Adler, The Study of Orchestration, appendix A); synthetic
programs have the range in which the sound keeps its character. Programs count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

STEMS = ("melody", "harmony", "pads", "bass", "drums", "effects")

# program: (name, lowest pitch, highest pitch)
INSTRUMENTS: dict[int, tuple[str, int, int]] = {
    0: ("grand piano", 28, 100),
    1: ("bright piano", 28, 100),
    2: ("electric grand", 28, 100),
    4: ("electric piano", 33, 96),
    5: ("FM electric piano", 33, 96),
    7: ("clavinet", 36, 84),
    8: ("celesta", 60, 103),
    9: ("glockenspiel", 67, 105),
    10: ("music box", 60, 100),
    11: ("vibraphone", 53, 89),
    12: ("marimba", 45, 96),
    14: ("tubular bells", 60, 79),
    15: ("dulcimer", 48, 84),
    16: ("drawbar organ", 36, 96),
    17: ("percussive organ", 36, 96),
    18: ("rock organ", 36, 96),
    19: ("church organ", 36, 96),
    21: ("accordion", 53, 88),
    22: ("harmonica", 60, 86),
    24: ("nylon guitar", 40, 84),
    25: ("steel guitar", 40, 84),
    26: ("jazz guitar", 40, 84),
    27: ("clean guitar", 40, 86),
    28: ("muted guitar", 40, 80),
    29: ("overdriven guitar", 40, 86),
    30: ("distortion guitar", 40, 86),
    32: ("double bass", 28, 62),
    33: ("electric bass", 28, 62),
    34: ("picked bass", 28, 62),
    35: ("fretless bass", 28, 62),
    36: ("slap bass", 28, 62),
    38: ("synth bass", 26, 60),
    39: ("sub synth bass", 26, 60),
    40: ("violin", 55, 96),
    41: ("viola", 48, 84),
    42: ("cello", 36, 74),
    43: ("contrabass", 28, 58),
    44: ("tremolo strings", 36, 96),
    45: ("pizzicato strings", 36, 91),
    46: ("harp", 28, 100),
    47: ("timpani", 38, 57),
    48: ("string ensemble", 33, 96),
    49: ("slow strings", 33, 96),
    50: ("synth strings", 33, 96),
    51: ("warm synth strings", 33, 96),
    52: ("choir", 43, 84),
    53: ("voices", 43, 84),
    56: ("trumpet", 54, 82),
    57: ("trombone", 40, 72),
    58: ("tuba", 28, 58),
    59: ("muted trumpet", 54, 82),
    60: ("French horns", 41, 77),
    61: ("brass section", 40, 82),
    62: ("synth brass", 36, 88),
    63: ("soft synth brass", 36, 88),
    64: ("soprano saxophone", 58, 86),
    66: ("tenor saxophone", 44, 76),
    68: ("oboe", 58, 88),
    69: ("English horn", 52, 81),
    70: ("bassoon", 36, 72),
    71: ("clarinet", 50, 90),
    72: ("piccolo", 74, 102),
    73: ("flute", 60, 94),
    74: ("recorder", 60, 92),
    75: ("pan flute", 60, 92),
    77: ("shakuhachi", 57, 84),
    78: ("whistle", 65, 96),
    79: ("ocarina", 60, 88),
    80: ("square lead", 40, 96),
    81: ("saw lead", 40, 96),
    84: ("charang lead", 40, 90),
    87: ("bass and lead", 36, 88),
    88: ("fantasia pad", 40, 92),
    89: ("warm pad", 36, 92),
    90: ("polysynth", 40, 92),
    91: ("space voice pad", 43, 88),
    92: ("bowed glass pad", 43, 92),
    94: ("halo pad", 40, 90),
    95: ("sweep pad", 40, 90),
    98: ("crystal", 55, 100),
    99: ("atmosphere", 43, 90),
    104: ("sitar", 48, 79),
    105: ("banjo", 48, 84),
    107: ("koto", 48, 86),
    108: ("kalimba", 55, 88),
    109: ("bagpipe", 55, 78),
    110: ("fiddle", 55, 93),
    114: ("steel drums", 52, 84),
    116: ("taiko", 36, 60),
    119: ("reverse cymbal", 55, 65),
}
KITS = {
    0: "standard kit",
    8: "room kit",
    16: "power kit",
    24: "electronic kit",
    25: "808 kit",
    32: "jazz kit",
    40: "brushes",
    48: "orchestral percussion",
}

# Names in tags: stem, and programs, the most typical first. Matched from the top, so that a longer name comes before a
# shorter one within it.
_INSTRUMENT_WORDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "electric piano|rhodes|wurlitzer|keys": ("harmony", (4, 5)),
    "piano": ("harmony", (0, 1, 2)),
    "keyboard": ("harmony", (4, 0, 5)),
    "celesta": ("harmony", (8,)),
    "music box": ("harmony", (10,)),
    "glockenspiel|bell|chime": ("melody", (9, 14, 98)),
    "vibraphone|vibes": ("melody", (11,)),
    "marimba|xylophone|mallet": ("harmony", (12, 108)),
    "kalimba": ("harmony", (108,)),
    "dulcimer": ("harmony", (15,)),
    "organ|hammond": ("harmony", (16, 17, 18, 19)),
    "accordion": ("melody", (21,)),
    "harmonica": ("melody", (22,)),
    "bass guitar|electric bass": ("bass", (33, 34, 35, 36)),
    "acoustic guitar|folk guitar": ("harmony", (25, 24)),
    "nylon guitar|classical guitar|spanish guitar": ("harmony", (24,)),
    "distorted guitar|distortion guitar|heavy guitar": ("harmony", (30, 29)),
    "electric guitar": ("harmony", (27, 29, 30, 28, 26)),
    "guitar": ("harmony", (25, 24, 27, 26, 28, 29, 30)),
    "ukulele": ("harmony", (24,)),
    "banjo": ("harmony", (105,)),
    "mandolin": ("harmony", (15, 105)),
    "sitar": ("melody", (104,)),
    "koto": ("harmony", (107,)),
    "double bass|upright bass|acoustic bass|contrabass": ("bass", (32, 43)),
    "synth bass|sub bass": ("bass", (38, 39)),
    "bass": ("bass", (33, 32, 34, 35, 36, 38, 39, 43)),
    "violin|fiddle": ("melody", (40, 110)),
    "viola": ("melody", (41,)),
    "cello": ("melody", (42,)),
    "pizzicato": ("harmony", (45,)),
    "string|string section|string ensemble|orchestra": ("pads", (48, 49, 44, 50, 51)),
    "harp": ("harmony", (46,)),
    "choir|voice|vocal|choral": ("pads", (52, 53)),
    "trumpet": ("melody", (56, 59)),
    "trombone": ("melody", (57,)),
    "tuba": ("bass", (58,)),
    "french horn|horn": ("melody", (60,)),
    "brass": ("pads", (61, 60, 62, 63)),
    "saxophone|sax(?:es)?": ("melody", (66, 64)),
    "oboe": ("melody", (68, 69)),
    "bassoon": ("melody", (70,)),
    "clarinet": ("melody", (71,)),
    "piccolo": ("melody", (72,)),
    "pan flute": ("melody", (75,)),
    "flute": ("melody", (73, 75, 77)),
    "recorder": ("melody", (74,)),
    "whistle|tin whistle": ("melody", (78,)),
    "ocarina": ("melody", (79,)),
    "woodwind|wind": ("melody", (73, 71, 68, 70)),
    "bagpipe": ("melody", (109,)),
    "lead synth|synth lead": ("melody", (81, 80, 87)),
    "pad|synth pad": ("pads", (89, 95, 94, 88, 91, 92)),
    "arpeggiator|arp|pluck": ("harmony", (90, 81, 98)),
    "synth|synthesi[sz]er": ("pads", (89, 95, 90, 88, 50, 51, 81, 80, 62, 63, 38, 39)),
    "steel drum|steelpan": ("melody", (114,)),
    "timpani|taiko": ("drums", (47, 116)),
    "drum|drum kit|drum machine|808|percussion|beat|snare|kick|hi-?hat|cymbal|shaker|tambourine|clap": ("drums", ()),
}
_PATTERNS = [
    (re.compile(rf"\b(?:{words})s?\b", re.IGNORECASE), instruments) for words, instruments in _INSTRUMENT_WORDS.items()
]


def find_instruments(words: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Return (stem, programs) for each of `words` that names an instrument; other words are ignored."""
    matches = (next((result for pattern, result in _PATTERNS if pattern.search(word)), None) for word in words)
    return [match for match in matches if match is not None]


def fit_octave(pitch: int, low: int, high: int) -> int:
    """Move `pitch` by octaves into [low, high], which spans at least an octave."""
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch
