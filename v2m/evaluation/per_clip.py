"""Every measure of one video with its music that needs no weights, by name: a row of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping

from v2m.analysis import defects, key_tempo
from v2m.analysis.beats import track_beats
from v2m.analysis.cut_alignment import cut_alignment
from v2m.analysis.loudness import integrated_loudness, true_peak
from v2m.analysis.motion import motion_correlation
from v2m.analysis.sync_score import sync_score
from v2m.core.types import Audio, Tags, VisualFeatures

Row = Mapping[str, float | None]

# What stands in a column, and its unit. Shares are 0–1.
METRICS = {
    "seconds": "of the picture",
    "length_error_ms": "sound longer (+) or shorter (−) than the picture, as the container tells",
    "cuts": "detected",
    "hits_70ms": "share of cuts with a measured beat within ±70 ms",
    "chance_70ms": "share of all instants that have one",
    "shuffled_70ms": "hits of the same beats moved round in a circle",
    "gain_70ms": "hits above chance",
    "gain_100ms": "the same within ±100 ms",
    "downbeat_gain_70ms": "the same of bar lines within ±70 ms",
    "median_ms": "median distance of a cut from its nearest beat",
    "accents": "percentile of the onset at the cuts among all instants; 0.5 by chance",
    "dynamics": "rank correlation of loudness and motion over seconds, −1 to 1",
    "onset_motion": "correlation of onsets and motion at the best lag within ±1 s, above that of shuffled motion",
    "onset_motion_lag_s": "that lag; above 0 the music comes after the picture",
    "tempo": "measured, beats per minute",
    "tempo_error": "share by which it misses the tags' tempo or a multiple of it",
    "key_score": "MIREX's, measured key against the tags', 0–1",
    "lufs": "integrated loudness",
    "true_peak": "dBTP",
    "silence": "share of the time below −60 dBFS",
    "leading_silence_s": "before the first sound",
    "trailing_silence_s": "after the last",
    "clipped": "share of samples at full scale, three in a row or more",
    "ending_db": "level of the last quarter of a second against the piece; about 0 where it is cut off",
    "loop": "how exactly the sound repeats, 0–1",
    "loop_s": "after how long",
    "click": "the sharpest bend of the waveform against those around it; tens where pieces were joined badly",
}


def clip_metrics(audio: Audio, features: VisualFeatures, duration: float, tags: Tags | None = None) -> Row:
    """The measures of COLUMNS for music `audio` under a picture that lasts `seconds`; None where one has no meaning.

    `tags` are what was asked for. Beats are measured from the sound, whoever wrote it, so that systems compare.
    """
    tags = tags or Tags()
    still, (repeat, after) = defects.measure_silence(audio), defects.find_loop(audio)
    found: dict[str, float | None] = {
        "seconds": duration,
        "length_error_ms": 1000 * (len(audio) / audio.sample_rate - duration),
        **_timing_metrics(audio, features, duration, tags),
        **_key_metrics(audio, tags),
        "lufs": integrated_loudness(audio),
        "true_peak": true_peak(audio),
        "silence": still.share,
        "leading_silence_s": still.leading,
        "trailing_silence_s": still.trailing,
        "clipped": defects.clipped_share(audio),
        "ending_db": defects.ending_level(audio),
        "loop": repeat,
        "loop_s": after,
        "click": defects.find_click(audio)[0],
    }
    return {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}


def _timing_metrics(audio: Audio, features: VisualFeatures, duration: float, tags: Tags) -> dict[str, float | None]:
    """Music without a beat meets no cut: its hits and chance are 0."""
    heard = track_beats(audio, tags.tempo)
    beats, downbeats = ([], []) if heard is None else (heard.beats, heard.downbeats)
    met = cut_alignment([cut.time for cut in features.cuts], beats, downbeats, duration=duration)
    fitting, moved = sync_score(audio, features), motion_correlation(audio, features)
    nothing = 0.0 if features.cuts and heard is None else None
    return {
        "cuts": float(met.n),
        "hits_70ms": nothing if met.hits is None else met.hits,
        "chance_70ms": nothing if met.chance is None else met.chance,
        "shuffled_70ms": nothing if met.shuffled is None else met.shuffled,
        "gain_70ms": _above_chance(met.hits, met.chance, nothing),
        "gain_100ms": _above_chance(met.hits_100ms, met.chance_100ms, nothing),
        "downbeat_gain_70ms": _above_chance(met.downbeat_hits, met.chance_downbeats, nothing),
        "median_ms": met.median_ms,
        "accents": fitting.accents,
        "dynamics": fitting.dynamics,
        "onset_motion": None if moved is None else moved.correlation - moved.chance,
        "onset_motion_lag_s": None if moved is None else moved.lag,
        "tempo": None if heard is None else heard.tempo,
        "tempo_error": None if heard is None or tags.tempo is None else key_tempo.tempo_error(heard.tempo, tags.tempo),
    }


def _key_metrics(audio: Audio, tags: Tags) -> dict[str, float | None]:
    asked = tags.tonic_and_mode
    found = key_tempo.estimate_key(audio) if asked else None
    return {"key_score": key_tempo.key_score(found, asked) if found and asked else None}


def _above_chance(hits: float | None, chance: float | None, nothing: float | None) -> float | None:
    return nothing if hits is None or chance is None else hits - chance
