"""Tags measured from the picture: no weights, no network.

Light, colour, motion and cutting are read as two axes, arousal and valence (Russell, "A circumplex model of affect",
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
from v2m.core.timing import mean_rate
from v2m.core.types import ProgressFn, Tags, Video, VisualFeatures, filter_unwanted
from v2m.taggers.base import TaggerBase
from v2m.taggers.genres import GENRES, HUES, MOOD_BOUNDS, MOODS, TONICS, Genre

HALF_MOTION = 0.25  # luma change per second that is half way to the most arousing motion: a walk past a still camera
HALF_CUTS = 20.0  # cuts per minute that are half way to the most arousing cutting
NEAR = 1.5  # a second genre is named when its distance is at most so many times that of the first
WORTH_NAMING = 0.15  # share of the coloured pixels


@dataclass(frozen=True)
class Impression:
    """Affect estimate of a video: 0–1, but `warmth` −1 to 1 and `motion` in luma change per second."""

    brightness: float
    saturation: float
    contrast: float
    warmth: float
    motion: float
    cuts_per_minute: float

    @classmethod
    def of(cls, picture: VisualFeatures, duration: float) -> Impression:
        return cls(
            brightness=float(picture.brightness.mean()),
            saturation=float(picture.saturation.mean()),
            contrast=float(picture.contrast.mean()),
            warmth=picture.warmth,
            motion=float(picture.motion.mean()),
            cuts_per_minute=60 * mean_rate(len(picture.cuts), duration),
        )

    @property
    def arousal(self) -> float:
        """0 still to 1 frantic."""
        motion = self.motion / (self.motion + HALF_MOTION)
        cutting = self.cuts_per_minute / (self.cuts_per_minute + HALF_CUTS)
        colour = np.clip(0.31 + 0.60 * self.saturation - 0.31 * self.brightness, 0, 1)
        return float(np.clip(0.5 * motion + 0.35 * cutting + 0.1 * colour + 0.4 * (self.contrast - 0.15), 0, 1))

    @property
    def valence(self) -> float:
        """0 gloomy to 1 cheerful."""
        light = np.clip((self.brightness - 0.05) / 0.6, 0, 1)  # means beyond that are rare in film
        return float(np.clip((0.69 * light + 0.22 * self.saturation) / 0.91 + 0.1 * self.warmth, 0, 1))


class Palette(TaggerBase):
    """Chooses music by the look of the picture. The same video gives the same tags.

    Args:
        genres: The genres to choose from, out of ambient, cinematic, lo-fi, acoustic folk, electronic, rock, jazz and
            orchestral; all of them if not given.
    """

    def __init__(self, genres: Sequence[str] = tuple(GENRES)) -> None:
        unknown = [name for name in genres if name not in GENRES]
        if unknown or not genres:
            raise UsageError(f"genres {list(genres)!r}: the palette tagger chooses from {', '.join(GENRES)}")
        self.genres = tuple(genres)

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags from the picture. Those left open by `hints` follow the hinted genre, where it is known here."""
        picture = video.visual_features(progress)
        seen = Impression.of(picture, video.duration)
        hinted = [name for name in (_known(word) for word in hints.genres) if name is not None]
        names = (hinted or ([] if hints.genres else self._nearest(seen, hints.negative)))[:2]
        tags = Tags(
            caption=_caption(seen, len(picture.cuts)),
            genres=names,
            moods=filter_unwanted(_moods(seen), hints.negative),
            timbres=filter_unwanted(_timbres(seen), hints.negative),
            key=f"{_tonic(picture)} {'major' if seen.valence >= 0.45 else 'minor'}",
        )
        if names:
            tags = _like(tags, GENRES[names[0]], seen, hints.negative)
        return tags.overridden_by(hints)

    def measure(self, video: Video) -> dict[str, Any]:
        """Plain rounded values: 0–1 but warmth −1 to 1, motion (luma change per second) and cuts."""
        picture = video.visual_features()
        seen = Impression.of(picture, video.duration)
        values = {name: getattr(seen, name) for name in (*Impression.__annotations__, "arousal", "valence")}
        cuts = [{"time": round(cut.time, 3), "strength": round(cut.strength, 2)} for cut in picture.cuts]
        return {name: round(value, 3) for name, value in values.items()} | {"hues": _hues(picture), "cuts": cuts}

    def _nearest(self, seen: Impression, negative: Iterable[str]) -> list[str]:
        """The genre that suits the picture best, and the next one if it is nearly as near."""
        distance = {name: _distance(seen, GENRES[name]) for name in filter_unwanted(self.genres, negative)}
        order = sorted(distance, key=distance.__getitem__)
        return [name for name in order if distance[name] <= NEAR * distance[order[0]]]


def _distance(seen: Impression, genre: Genre) -> float:
    """Arousal and valence count most: the colours only choose between genres that lie near each other."""
    return float(
        np.hypot.reduce(
            [
                1.5 * (seen.arousal - genre.arousal),
                1.0 * (seen.valence - genre.valence),
                0.5 * (seen.saturation - genre.saturation),
                0.4 * (seen.warmth - genre.warmth),
            ]
        )
    )


def _like(tags: Tags, genre: Genre, seen: Impression, negative: Iterable[str]) -> Tags:
    low, high = genre.tempo
    return replace(
        tags,
        instruments=filter_unwanted(genre.instruments, negative),
        timbres=filter_unwanted((*genre.timbres, *tags.timbres), negative),
        tempo=round(low + (high - low) * seen.arousal, 1),
    )


def _known(word: str) -> str | None:
    """The genre that `word` names or belongs to: "techno" is electronic, "indie folk" is acoustic folk."""
    word = word.lower()
    if word in GENRES:
        return word
    found = [name for name, genre in GENRES.items() if any(other in word for other in (name, *genre.also))]
    return found[0] if found else None


def _moods(seen: Impression) -> tuple[str, ...]:
    row, column = np.digitize([seen.arousal, seen.valence], MOOD_BOUNDS)
    return MOODS[row][column]


def _tonic(picture: VisualFeatures) -> str:
    return TONICS[int(np.argmax(picture.hues))]


def _hues(picture: VisualFeatures) -> list[str]:
    """Names of the hues that take a good share of the coloured pixels, the largest first."""
    order = np.argsort(-picture.hues, kind="stable")
    return [HUES[hue] for hue in order if picture.hues[hue] >= WORTH_NAMING]


def _timbres(seen: Impression) -> list[str]:
    words = ["bright" if seen.brightness > 0.5 else "dark" if seen.brightness < 0.25 else ""]
    words.append("warm" if seen.warmth > 0.25 else "cool" if seen.warmth < -0.25 else "")
    return [word for word in words if word]


def _caption(seen: Impression, cuts: int) -> str:
    """One factual sentence: light, colour, motion, cuts."""
    words = [
        "bright" if seen.brightness > 0.5 else "dark" if seen.brightness < 0.25 else "",
        "grey" if seen.saturation < 0.1 else "colourful" if seen.saturation > 0.5 else "",
        "warm" if seen.warmth > 0.25 else "cool" if seen.warmth < -0.25 else "",
        "still" if seen.motion < 0.03 else "slow-moving" if seen.motion < 0.12 else "moving",
    ]
    if seen.motion > 0.4:
        words[-1] = "fast-moving"
    number = "no cuts" if cuts == 0 else "one cut" if cuts == 1 else f"{cuts} cuts"
    return f"{', '.join(word for word in words if word)} picture with {number}"
