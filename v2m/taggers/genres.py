"""Genres of the heuristic tagger and words for moods. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Genre:
    """Position of a genre in the affect plane, and its instruments and tempo.

    arousal, valence, saturation 0–1, warmth −1 to 1: the picture that it suits best. tempo: beats per minute for the
    stillest and the liveliest picture. also: other words for it.
    """

    arousal: float
    valence: float
    saturation: float
    warmth: float
    tempo: tuple[float, float]
    instruments: tuple[str, ...]
    timbres: tuple[str, ...]
    also: tuple[str, ...]


GENRES = {
    "ambient": Genre(
        *(0.10, 0.50, 0.30, -0.3),
        (58, 84),
        ("warm pad", "bowed glass pad", "celesta", "harp"),
        ("airy", "spacious"),
        ("drone", "meditation", "new age", "soundscape"),
    ),
    "lo-fi": Genre(
        *(0.25, 0.35, 0.20, 0.2),
        (68, 90),
        ("electric piano", "muted guitar", "electric bass", "drums"),
        ("soft", "dusty"),
        ("lofi", "hip hop", "chillhop", "trip hop", "downtempo", "r&b"),
    ),
    "acoustic folk": Genre(
        *(0.30, 0.70, 0.45, 0.5),
        (80, 122),
        ("acoustic guitar", "fiddle", "double bass", "tambourine"),
        ("woody", "natural"),
        ("folk", "country", "singer-songwriter", "americana", "bluegrass", "celtic"),
    ),
    "jazz": Genre(
        *(0.42, 0.28, 0.60, 0.5),
        (92, 160),
        ("piano", "double bass", "tenor saxophone", "brushed drums"),
        ("smoky", "round"),
        ("swing", "blues", "bossa nova", "lounge", "bebop", "big band"),
    ),
    "cinematic": Genre(
        *(0.50, 0.20, 0.30, -0.3),
        (72, 120),
        ("string ensemble", "cello", "piano", "taiko"),
        ("wide", "deep"),
        ("film score", "soundtrack", "trailer", "epic", "dramatic", "suspense"),
    ),
    "orchestral": Genre(
        *(0.52, 0.75, 0.45, 0.0),
        (78, 134),
        ("string ensemble", "French horns", "flute", "harp", "timpani"),
        ("full", "bright"),
        ("classical", "symphonic", "orchestra", "baroque", "chamber", "romantic era"),
    ),
    "electronic": Genre(
        *(0.74, 0.60, 0.65, -0.3),
        (106, 136),
        ("synth lead", "synth pad", "synth bass", "drum machine"),
        ("punchy", "glossy"),
        ("techno", "house", "edm", "trance", "synth", "electro", "dance", "dubstep", "drum and bass"),
    ),
    "rock": Genre(
        *(0.74, 0.35, 0.30, 0.3),
        (100, 150),
        ("distortion guitar", "electric guitar", "electric bass", "drums"),
        ("gritty", "loud"),
        ("punk", "metal", "grunge", "alternative", "indie"),
    ),
}

# moods by arousal (rows) and valence (columns), each low, middle or high, parted at these values
MOOD_BOUNDS = (0.33, 0.6)
MOODS = (
    (("somber", "melancholic"), ("calm", "mellow"), ("peaceful", "gentle")),
    (("dark", "mysterious"), ("thoughtful", "flowing"), ("hopeful", "warm")),
    (("tense", "dramatic"), ("driving", "energetic"), ("uplifting", "playful")),
)

# every 30° of hue, from red
HUES = (
    *("red", "orange", "yellow", "lime", "green", "mint"),
    *("cyan", "azure", "blue", "violet", "magenta", "rose"),
)

# a fifth for every 30° of hue from C = red, as in the light part of Scriabin's Prometheus
TONICS = ("C", "G", "D", "A", "E", "B", "F#", "Db", "Ab", "Eb", "Bb", "F")
