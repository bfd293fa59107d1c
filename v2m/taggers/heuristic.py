"""Tags measured from the picture: no weights, no network.

Light, color, motion and cutting are read as two axes, arousal and valence (Russell, "A circumplex model of affect",
1980), which film and music share, and music is chosen by where the picture lies:

* brightness and saturation: pleasure = 0.69 B + 0.22 S, arousal = −0.31 B + 0.60 S (Valdez and Mehrabian, "Effects of
  color on emotions", 1994);
* warm hues are active and pleasant (Ou et al., "A study of colour emotion and colour preference", 2004);
* motion and the density of cuts make arousal (Hanjalic and Xu, "Affective video content representation and
  modeling", 2005).

The weights between these are chosen, not fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.licenses import LicensedComponent
from v2m.core.timing import mean_rate
from v2m.core.types import ProgressFn, Tags, Video, VisualFeatures, filter_unwanted
from v2m.taggers.base import TaggerBase

# half way to the most arousing motion, luma change per second: a walk past a still camera
HALF_AROUSAL_MOTION = 0.25
HALF_AROUSAL_CUTS = 20.0  # cuts per minute that are half way to the most arousing cutting
MAX_DISTANCE_RATIO = 1.5  # a second genre is named when its distance is at most so many times that of the first
MIN_HUE_SHARE = 0.15  # share of the colored pixels


@dataclass(frozen=True)
class Genre:
    """Position of a genre in the affect plane, and its instruments and tempo.

    Args:
        arousal: 0–1, of the picture that it suits best; so are valence and saturation.
        valence: 0–1.
        saturation: 0–1.
        warmth: −1 to 1.
        tempo_range: Beats per minute for the stillest and the liveliest picture.
        instruments: Typical instruments, the leading one first.
        timbres: Typical timbres.
        synonyms: Other words for it, and its subgenres.
    """

    arousal: float
    valence: float
    saturation: float
    warmth: float
    tempo_range: tuple[float, float]
    instruments: tuple[str, ...]
    timbres: tuple[str, ...]
    synonyms: tuple[str, ...]


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


@dataclass(frozen=True)
class AffectEstimate:
    """Affect of a video: 0–1, but `warmth` −1 to 1 and `motion` in luma change per second."""

    brightness: float
    saturation: float
    contrast: float
    warmth: float
    motion: float
    cuts_per_minute: float

    @classmethod
    def from_features(cls, features: VisualFeatures, duration: float) -> AffectEstimate:
        return cls(
            brightness=float(features.brightness.mean()),
            saturation=float(features.saturation.mean()),
            contrast=float(features.contrast.mean()),
            warmth=features.warmth,
            motion=float(features.motion.mean()),
            cuts_per_minute=60 * mean_rate(len(features.cuts), duration),
        )

    @property
    def arousal(self) -> float:
        """Arousal, 0 still to 1 frantic."""
        motion = self.motion / (self.motion + HALF_AROUSAL_MOTION)
        cutting = self.cuts_per_minute / (self.cuts_per_minute + HALF_AROUSAL_CUTS)
        color = np.clip(0.31 + 0.60 * self.saturation - 0.31 * self.brightness, 0, 1)
        return float(np.clip(0.5 * motion + 0.35 * cutting + 0.1 * color + 0.4 * (self.contrast - 0.15), 0, 1))

    @property
    def valence(self) -> float:
        """Valence, 0 gloomy to 1 cheerful."""
        light = np.clip((self.brightness - 0.05) / 0.6, 0, 1)  # means beyond that are rare in film
        return float(np.clip((0.69 * light + 0.22 * self.saturation) / 0.91 + 0.1 * self.warmth, 0, 1))


class HeuristicTagger(TaggerBase):
    """Tags by the look of the picture. The same video gives the same tags.

    Args:
        genres: The genres to choose from, out of ambient, cinematic, lo-fi, acoustic folk, electronic, rock, jazz and
            orchestral; all of them if not given.
    """

    def __init__(self, genres: Sequence[str] = tuple(GENRES)) -> None:
        unknown = [name for name in genres if name not in GENRES]
        if unknown or not genres:
            raise UsageError(f"genres {list(genres)!r}: the heuristic tagger chooses from {', '.join(GENRES)}")
        self.genres = tuple(genres)

    def components(self) -> list[LicensedComponent]:
        """Return none: it is code of v2m alone."""
        return []

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags from the picture. Those left open by `hints` follow the hinted genre, where it is known here."""
        features = video.visual_features(progress)
        affect = AffectEstimate.from_features(features, video.duration)
        hinted = list(filter(None, map(_find_genre, hints.genres)))
        names = (hinted or ([] if hints.genres else self._nearest_genres(affect, hints.negative)))[:2]
        timbres = list(filter(None, (_brightness_word(affect), _warmth_word(affect))))
        tags = Tags(
            caption=_write_caption(affect, len(features.cuts)),
            genres=names,
            moods=filter_unwanted(_choose_moods(affect), hints.negative),
            timbres=filter_unwanted(timbres, hints.negative),
            key=f"{TONICS[int(np.argmax(features.hues))]} {'major' if affect.valence >= 0.45 else 'minor'}",
        )
        if names:
            tags = _add_genre_tags(tags, GENRES[names[0]], affect, hints.negative)
        return tags.overridden_by(hints)

    def measure(self, video: Video) -> dict[str, Any]:
        """Plain rounded values: 0–1 but warmth −1 to 1, motion (luma change per second) and cuts."""
        features = video.visual_features()
        affect = AffectEstimate.from_features(features, video.duration)
        values = {name: getattr(affect, name) for name in (*AffectEstimate.__annotations__, "arousal", "valence")}
        cuts = [{"time": round(cut.time, 3), "strength": round(cut.strength, 2)} for cut in features.cuts]
        return {name: round(value, 3) for name, value in values.items()} | {"hues": _name_hues(features), "cuts": cuts}

    def _nearest_genres(self, affect: AffectEstimate, negative: Iterable[str]) -> list[str]:
        """Genres by distance, the nearest first, up to `MAX_DISTANCE_RATIO` times its distance."""
        distances = {name: _distance(affect, GENRES[name]) for name in filter_unwanted(self.genres, negative)}
        order = sorted(distances, key=distances.__getitem__)
        return [name for name in order if distances[name] <= MAX_DISTANCE_RATIO * distances[order[0]]]


def _distance(affect: AffectEstimate, genre: Genre) -> float:
    """Distance in the affect plane; the colors only choose between genres that lie near each other."""
    return float(
        np.hypot.reduce(
            [
                1.5 * (affect.arousal - genre.arousal),
                1.0 * (affect.valence - genre.valence),
                0.5 * (affect.saturation - genre.saturation),
                0.4 * (affect.warmth - genre.warmth),
            ]
        )
    )


def _add_genre_tags(tags: Tags, genre: Genre, affect: AffectEstimate, negative: Iterable[str]) -> Tags:
    low, high = genre.tempo_range
    return replace(
        tags,
        instruments=filter_unwanted(genre.instruments, negative),
        timbres=filter_unwanted((*genre.timbres, *tags.timbres), negative),
        tempo=round(low + (high - low) * affect.arousal, 1),
    )


def _find_genre(word: str) -> str | None:
    """The genre that `word` names or belongs to: "techno" is electronic, "indie folk" is acoustic folk."""
    word = word.lower()
    if word in GENRES:
        return word
    return next((name for name in GENRES if any(term in word for term in (name, *GENRES[name].synonyms))), None)


def _choose_moods(affect: AffectEstimate) -> tuple[str, ...]:
    row, column = np.digitize([affect.arousal, affect.valence], MOOD_BOUNDS)
    return MOODS[row][column]


def _name_hues(features: VisualFeatures) -> list[str]:
    """Names of the hues that take a good share of the colored pixels, the largest first."""
    order = np.argsort(-features.hues, kind="stable")
    return [HUES[hue] for hue in order if features.hues[hue] >= MIN_HUE_SHARE]


def _brightness_word(affect: AffectEstimate) -> str:
    return "bright" if affect.brightness > 0.5 else "dark" if affect.brightness < 0.25 else ""


def _warmth_word(affect: AffectEstimate) -> str:
    return "warm" if affect.warmth > 0.25 else "cool" if affect.warmth < -0.25 else ""


def _write_caption(affect: AffectEstimate, cuts: int) -> str:
    """One factual sentence: light, color, motion, cuts."""
    color = "gray" if affect.saturation < 0.1 else "colorful" if affect.saturation > 0.5 else ""
    speeds = ("still", "slow-moving", "moving", "fast-moving")
    speed = speeds[int(np.digitize(affect.motion, (0.03, 0.12, 0.4)))]
    words = filter(None, (_brightness_word(affect), color, _warmth_word(affect), speed))
    number = "no cuts" if cuts == 0 else "one cut" if cuts == 1 else f"{cuts} cuts"
    return f"{', '.join(words)} picture with {number}"
