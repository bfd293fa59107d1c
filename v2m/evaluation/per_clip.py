"""Metrics without weights of videos with music: a row of the table for each file; their ground truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from v2m.analysis import defects
from v2m.analysis.key_tempo import estimate_key, key_score, tempo_error
from v2m.analysis.loudness import integrated_loudness, true_peak
from v2m.analysis.rhythm import track_beats
from v2m.analysis.synchrony import cut_alignment, motion_correlation, sync_score
from v2m.core.engine import Engine, SerialEngine, map_in_order
from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Tags, Video, VisualFeatures

Row = Mapping[str, float | None]
SAMPLE_RATE = 48_000  # Hz, at which music is measured

# The metrics and their units. Shares are 0–1.
METRICS = {
    "seconds": "of the video",
    "length_error_ms": "audio longer (+) or shorter (−) than the video, by the container",
    "cuts": "detected",
    "hits_70ms": "share of cuts with a measured beat within ±70 ms",
    "chance_70ms": "share of all instants that have one",
    "shuffled_70ms": "hits of the same beats shifted in a circle",
    "gain_70ms": "hits above chance",
    "gain_100ms": "the same within ±100 ms",
    "downbeat_gain_70ms": "the same of downbeats within ±70 ms",
    "median_ms": "median distance of a cut from its nearest beat",
    "accents": "percentile of the onset at the cuts among all instants; 0.5 by chance",
    "dynamics": "rank correlation of loudness and motion over seconds, −1 to 1",
    "onset_motion": "correlation of onsets and motion at the best lag within ±1 s, above that of shuffled motion",
    "onset_motion_lag_s": "that lag; above 0 the music comes after the video",
    "tempo": "measured, beats per minute",
    "tempo_error": "relative error to the tags' tempo or a multiple of it",
    "key_score": "MIREX's, measured key against the tags', 0–1",
    "lufs": "integrated loudness",
    "true_peak": "dBTP",
    "silence": "share of the time below −60 dBFS",
    "leading_silence_s": "before the first sound",
    "trailing_silence_s": "after the last",
    "clipped": "share of samples at full scale, three in a row or more",
    "ending_db": "level of the last quarter of a second relative to the piece; about 0 where it is cut off",
    "loop": "how exactly the audio repeats, 0–1",
    "loop_s": "its period",
    "click": "the sharpest bend of the waveform relative to those around it; tens where pieces were joined badly",
}


def clip_metrics(audio: Audio, features: VisualFeatures, duration: float, tags: Tags | None = None) -> Row:
    """Compute METRICS of music for a video of `duration` seconds; None where one is undefined.

    `tags` are what the music was asked to be. Beats are tracked in the audio whoever wrote it, so that systems compare.
    """
    tags = tags or Tags()
    silence = defects.measure_silence(audio)
    loop_strength, loop_period = defects.find_loop(audio)
    reference = tags.tonic_and_mode
    key = estimate_key(audio) if reference else None
    row: dict[str, float | None] = {
        "seconds": duration,
        "length_error_ms": 1000 * (len(audio) / audio.sample_rate - duration),
        **_timing_metrics(audio, features, duration, tags),
        "key_score": key_score(key, reference) if key and reference else None,
        "lufs": integrated_loudness(audio),
        "true_peak": true_peak(audio),
        "silence": silence.share,
        "leading_silence_s": silence.leading,
        "trailing_silence_s": silence.trailing,
        "clipped": defects.clipped_share(audio),
        "ending_db": defects.ending_level(audio),
        "loop": loop_strength,
        "loop_s": loop_period,
        "click": defects.find_click(audio)[0],
    }
    return {name: value if value is not None and math.isfinite(value) else None for name, value in row.items()}


def _timing_metrics(audio: Audio, features: VisualFeatures, duration: float, tags: Tags) -> dict[str, float | None]:
    """Metrics of beats, accents, dynamics and tempo. Without a beat track, hits and chance are 0."""
    track = track_beats(audio, tags.tempo)
    beats, downbeats = ([], []) if track is None else (track.beats, track.downbeats)
    alignment = cut_alignment([cut.time for cut in features.cuts], beats, downbeats, duration=duration)
    sync, motion = sync_score(audio, features), motion_correlation(audio, features)
    default = 0.0 if features.cuts and track is None else None
    return {
        "cuts": float(alignment.n),
        "hits_70ms": default if alignment.hits is None else alignment.hits,
        "chance_70ms": default if alignment.chance is None else alignment.chance,
        "shuffled_70ms": default if alignment.shuffled is None else alignment.shuffled,
        "gain_70ms": above_chance(alignment.hits, alignment.chance, default),
        "gain_100ms": above_chance(alignment.hits_100ms, alignment.chance_100ms, default),
        "downbeat_gain_70ms": above_chance(alignment.downbeat_hits, alignment.chance_downbeats, default),
        "median_ms": alignment.median_ms,
        "accents": sync.accents,
        "dynamics": sync.dynamics,
        "onset_motion": None if motion is None else motion.correlation - motion.chance,
        "onset_motion_lag_s": None if motion is None else motion.lag,
        "tempo": None if track is None else track.tempo,
        "tempo_error": None if track is None or tags.tempo is None else tempo_error(track.tempo, tags.tempo),
    }


def above_chance(hits: float | None, chance: float | None, default: float | None = None) -> float | None:
    """Return `hits` less the chance level, or `default` where one of them is undefined."""
    return default if hits is None or chance is None else hits - chance


def evaluate_file(path: Path) -> Row:
    """Return the metrics of a video's default audio track, with the tags of the sidecar beside it, if any.

    There is no length error where the container has no duration of it. Raises InvalidInputError without sound.
    """
    from v2m.media import video

    clip = video.open(path)
    audio = video_audio(clip)
    row = clip_metrics(audio, clip.visual_features(), clip.duration, sidecar_tags(path))
    track = clip.audio_track()
    return row if track is not None and track.duration is not None else {**row, "length_error_ms": None}


def video_audio(clip: Video) -> Audio:
    """Return a video's default audio track in all its length. Raises InvalidInputError where it has none."""
    from v2m.media.audio import original_audio

    track = clip.audio_track()
    if track is None:
        raise InvalidInputError("no_sound", f"{str(clip.path)!r} has no sound: there is no music to measure")
    return original_audio(clip, SAMPLE_RATE, track.duration)[0]


def ground_truth_audio(path: Path, max_duration: float) -> Audio:
    """Return the first `max_duration` seconds of an audio file or of a video's music, which must exist."""
    from v2m.media import audio, video

    if path.suffix.lower() not in video.VIDEO_SUFFIXES:
        return audio.load(path, SAMPLE_RATE, max_duration)
    track = video_audio(video.open(path))
    return Audio(track.samples[:, : seconds_to_samples(max_duration, SAMPLE_RATE)], SAMPLE_RATE)


def sidecar_tags(path: Path) -> Tags | None:
    """Return the tags in the sidecar of a video that v2m has written; None where there is no readable one."""
    try:
        tags = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["tags"]
        return Tags(**{field.name: tags[field.name] for field in fields(Tags) if field.name in tags})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def videos_by_name(paths: Sequence[str]) -> dict[str, Path]:
    """Return the videos given, or in folders given, by their names without `.v2m` and suffix."""
    from v2m.media.video import VIDEO_SUFFIXES

    videos = [video for path in paths for video in _list_files(Path(path), VIDEO_SUFFIXES)]
    names = [clip_name(video) for video in videos]
    if duplicates := ", ".join(sorted({name for name in names if names.count(name) > 1})):
        raise UsageError(f"{duplicates}: more than one video of that name; `compare` takes a folder for each system")
    return dict(zip(names, videos, strict=True))


def ground_truth_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the one audio file or video in `folder` for each of `names`. Raises UsageError for others."""
    from v2m.media.audio import AUDIO_SUFFIXES
    from v2m.media.video import VIDEO_SUFFIXES

    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is no folder: `ground_truth` takes one with the true music of each video")
    files: dict[str, list[Path]] = {}
    for path in _list_files(folder, VIDEO_SUFFIXES | {*AUDIO_SUFFIXES}):
        files.setdefault(clip_name(path), []).append(path)
    names = list(names)
    if missing := [name for name in names if name not in files]:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UsageError(f"{str(folder)!r} lacks the true music of {shown}: put files of those names there")
    if duplicates := [name for name in names if len(files[name]) > 1]:
        raise UsageError(f"{str(folder)!r} has more than one file for {', '.join(duplicates)}: leave one")
    return {name: files[name][0] for name in names}


def evaluate_paths(paths: Sequence[str]) -> dict[str, Row]:
    """Return a row for each video given or in a folder given, by its name."""
    return evaluate_systems({"": videos_by_name(paths)})[""]


def evaluate_systems(
    videos: Mapping[str, Mapping[str, Path]], engine: Engine | None = None
) -> dict[str, dict[str, Row]]:
    """Return a row for each video of each system, by its name.

    `engine` measures in other processes, whose machines share the files.
    """
    from tqdm import tqdm

    paths = [path for files in videos.values() for path in files.values()]
    with tqdm(total=len(paths), desc="videos", unit="video", disable=None) as bar:
        rows = iter(map_in_order(engine or SerialEngine(), _load_evaluator, paths, bar.update))
    return {system: {name: next(rows) for name in files} for system, files in videos.items()}


def _load_evaluator() -> Callable[[Path], Row]:
    return evaluate_file


def clip_name(path: Path) -> str:
    return path.name.split(".v2m.")[0] if ".v2m." in path.name else path.stem


def _list_files(path: Path, suffixes: Iterable[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.name[0] != ".")
    if not files:
        raise InvalidInputError("no_videos", f"{str(path)!r} holds no videos ({', '.join(sorted(suffixes))})")
    return files
