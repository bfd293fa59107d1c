"""Tags estimated from music itself, for what no file of tags says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from v2m.analysis import key_tempo
from v2m.analysis.rhythm import track_beats
from v2m.core import timing
from v2m.core.types import TEMPO_RANGE, Audio, Floats, Tags
from v2m.sketch.instruments import INSTRUMENTS
from v2m.sketch.notation.performance import estimate_key
from v2m.sketch.notation.score import Score
from v2m.sketch.notation.vocabulary import DRUM_VOICES
from v2m.taggers.heuristic import GENRES, TONICS

MAX_INSTRUMENTS = 4
EXCERPT_S = 60.0  # from the middle, of which beats and key are estimated
MIN_GENRE_INSTRUMENTS = 2  # that a genre must share
# Words of the genres for General MIDI programs, where `INSTRUMENTS` has another name; and for kits.
_WORDS = {0: "piano", 1: "piano", 25: "acoustic guitar", 27: "electric guitar", 29: "electric guitar"}
_WORDS |= {80: "synth lead", 81: "synth lead", 90: "synth pad", 95: "synth pad"}
_KITS = {24: "drum machine", 25: "drum machine", 40: "brushed drums"}
_NAMES = {7 * fifth % 12: name for fifth, name in enumerate(TONICS)}


def score_tags(score: Score, programs: Counter[tuple[int, bool]]) -> Tags:
    """Return tempo, key, and by `programs` (as `read_programs`) instruments and a genre."""
    key = estimate_key(score)
    is_pitched = any(voice not in DRUM_VOICES for voice, _ in score.notes)
    names = (_name(program, is_kit) for (program, is_kit), _ in programs.most_common())
    instruments = [*dict.fromkeys(filter(None, names))][:MAX_INSTRUMENTS]
    return Tags(
        genres=_find_genres(instruments),
        instruments=instruments,
        tempo=_tempo(score.beats),
        key=f"{_NAMES[key.tonic]} {key.mode}" if is_pitched else None,
    )


def _name(program: int, is_kit: bool) -> str:
    if is_kit:
        return _KITS.get(program, "drums")
    return _WORDS.get(program) or INSTRUMENTS.get(program, ("",))[0]


def sound_tags(audio: Audio) -> Tags:
    """Return tempo and key of an excerpt, as far as they are found."""
    rate, seconds = audio.sample_rate, timing.samples_to_seconds(len(audio), audio.sample_rate)
    start = timing.seconds_to_samples(max(0.0, (seconds - EXCERPT_S) / 2), rate)
    excerpt = Audio(audio.samples[:, start : start + timing.seconds_to_samples(EXCERPT_S, rate)], rate)
    track, key = track_beats(excerpt), key_tempo.estimate_key(excerpt)
    return Tags(
        tempo=None if track is None else _tempo(track.beats), key=None if key is None else f"{_NAMES[key[0]]} {key[1]}"
    )


def _tempo(beats: Floats) -> float | None:
    """Return the median tempo within the range of tags; None without beats."""
    if len(beats) < 2:
        return None
    tempo = timing.beat_seconds(float(np.median(np.diff(beats))))
    low, high = TEMPO_RANGE
    return round(tempo, 1) if low <= tempo <= high else None


def _find_genres(instruments: Iterable[str]) -> tuple[str, ...]:
    """Return the genre of which most typical instruments are there, where it is one alone."""
    words = set(instruments)
    shared = Counter({name: len(words & set(genre.instruments)) for name, genre in GENRES.items()})
    (first, most), (_, second) = shared.most_common(2)
    return (first,) if most >= MIN_GENRE_INSTRUMENTS and most > second else ()
