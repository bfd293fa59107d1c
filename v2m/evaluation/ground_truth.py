"""Videos with music, as files: their metrics without weights, their ground truth and their tags."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.timing import sample_count
from v2m.core.types import Audio, Tags, Video
from v2m.evaluation.per_clip import Row, clip_metrics

SAMPLE_RATE = 48_000


def evaluate_file(path: Path) -> Row:
    """Return the metrics of a video's first audio track; no length error where the container has no duration of it.

    The tags are those of the sidecar beside it, if there is one.

    Raises:
        InvalidInputError: It is no video, or has no sound.
    """
    from v2m.media import video

    clip = video.open(path)
    audio = video_audio(clip)
    row = clip_metrics(audio, clip.visual_features(), clip.duration, sidecar_tags(path))
    if clip.audio_streams[0].duration is None:
        return {**row, "length_error_ms": None}
    return row


def video_audio(clip: Video) -> Audio:
    """Return a video's first audio track in all its length. Raises InvalidInputError where it has none."""
    from v2m.media.audio import original_audio

    if not clip.audio_streams:
        raise InvalidInputError("no_sound", f"{str(clip.path)!r} has no sound: there is no music to measure")
    return original_audio(clip, SAMPLE_RATE, clip.audio_streams[0].duration)[0]


def ground_truth_audio(path: Path, max_duration: float) -> Audio:
    """Return the first `max_duration` seconds of an audio file or of a video's music.

    Raises UsageError or InvalidInputError where there is none.
    """
    from v2m.media import audio, video

    if path.suffix.lower() not in video.VIDEO_SUFFIXES:
        return audio.load(path, SAMPLE_RATE, max_duration)
    track = video_audio(video.open(path))
    return Audio(track.samples[:, : sample_count(max_duration, SAMPLE_RATE)], SAMPLE_RATE)


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
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError(
            f"{', '.join(duplicates)}: more than one video of that name; --compare takes a folder for each system"
        )
    return dict(zip(names, videos, strict=True))


def ground_truth_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the ground truth of each of `names`: an audio file or a video in `folder`.

    Raises:
        UsageError: It is no folder, or lacks a name, or has two files of one name.
    """
    from v2m.media.audio import AUDIO_SUFFIXES
    from v2m.media.video import VIDEO_SUFFIXES

    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is no folder: --ground-truth takes one with the true music of each video")
    files: dict[str, list[Path]] = {}
    for path in _list_files(folder, VIDEO_SUFFIXES | {*AUDIO_SUFFIXES}):
        files.setdefault(clip_name(path), []).append(path)
    names = list(names)
    missing = [name for name in names if name not in files]
    if missing:
        shown = ", ".join(missing[:3])
        if len(missing) > 3:
            shown += f" and {len(missing) - 3} more"
        raise UsageError(f"{str(folder)!r} lacks the true music of {shown}: put files of those names there")
    duplicates = [name for name in names if len(files[name]) > 1]
    if duplicates:
        raise UsageError(f"{str(folder)!r} has more than one file for {', '.join(duplicates)}: leave one")
    return {name: files[name][0] for name in names}


def evaluate_paths(paths: Sequence[str]) -> dict[str, Row]:
    """Return a row for each video given or in a folder given, by its name."""
    return evaluate_files(videos_by_name(paths))


def evaluate_files(paths: Mapping[str, Path]) -> dict[str, Row]:
    """Return a row for each video, by its name."""
    from tqdm import tqdm

    bar = tqdm(paths.items(), total=len(paths), desc="videos", unit="video", disable=None)
    return {name: evaluate_file(path) for name, path in bar}


def clip_name(path: Path) -> str:
    return path.name.split(".v2m.")[0] if ".v2m." in path.name else path.stem


def _list_files(path: Path, suffixes: Iterable[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.name[0] != ".")
    if not files:
        raise InvalidInputError("no_videos", f"{str(path)!r} holds no videos ({', '.join(sorted(suffixes))})")
    return files
