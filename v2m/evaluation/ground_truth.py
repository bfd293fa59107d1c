"""Videos with music, as files: their measures without weights, and what measures with weights are made from."""

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
AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus"}


def evaluate_file(path: Path) -> Row:
    """The measures of a video's first sound; no length error where the container does not tell how long that is.

    The tags are those of the sidecar beside it, if there is one.

    Raises:
        InvalidInputError: It is no video, or has no sound.
    """
    from v2m.media import video

    clip = video.open(path)
    sound = video_audio(clip)
    found = clip_metrics(sound, clip.visual_features(), clip.duration, sidecar_tags(path))
    return {
        **found,
        "length_error_ms": found["length_error_ms"] if clip.audio_streams[0].duration is not None else None,
    }


def video_audio(clip: Video) -> Audio:
    """The first sound of a video. Raises InvalidInputError where it has none."""
    from v2m.media import audio
    from v2m.media.ffmpeg import DISCONTINUOUS_FORMATS

    if not clip.audio_streams:
        raise InvalidInputError("no_sound", f"{str(clip.path)!r} has no sound: there is no music to measure")
    stream = clip.audio_streams[0]
    length = clip.duration if stream.duration is None else stream.duration
    restarting = not DISCONTINUOUS_FORMATS.isdisjoint(clip.container.split(","))
    return audio.read_track(clip.path, stream.index, clip.offset, length, SAMPLE_RATE, discontinuous=restarting)[0]


def ground_truth_audio(path: Path, max_duration: float) -> Audio:
    """The first `seconds` of the music in a sound file, or in a video. Raises UsageError or InvalidInputError."""
    from v2m.media import audio, video

    if path.suffix.lower() not in video.VIDEO_SUFFIXES:
        return audio.load(path, SAMPLE_RATE, max_duration)
    sound = video_audio(video.open(path))
    return Audio(sound.samples[:, : sample_count(max_duration, SAMPLE_RATE)], SAMPLE_RATE)


def sidecar_tags(path: Path) -> Tags | None:
    """The tags of the sidecar of a video that v2m has written; None where there is none that can be read."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        said = record["tags"]
        return Tags(**{each.name: said[each.name] for each in fields(Tags) if each.name in said})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def videos_by_name(places: Sequence[str]) -> dict[str, Path]:
    """The videos named, or in folders named, by their names without `.v2m` and suffix."""
    from v2m.media.video import VIDEO_SUFFIXES

    paths = [path for place in places for path in _list_files(Path(place), VIDEO_SUFFIXES)]
    names = [clip_name(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(twice)}: more than one video of that name; --compare takes a folder for each system"
        )
    return dict(zip(names, paths, strict=True))


def ground_truth_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The true music of each of `names`: a sound file or a video in `folder`.

    Raises:
        UsageError: It is no folder, or lacks one, or has two of a name.
    """
    from v2m.media.video import VIDEO_SUFFIXES

    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is no folder: --ground-truth takes one with the true music of each video")
    found: dict[str, list[Path]] = {}
    for path in _list_files(folder, VIDEO_SUFFIXES | AUDIO_SUFFIXES):
        found.setdefault(clip_name(path), []).append(path)
    names = list(names)
    lacking = [name for name in names if name not in found]
    if lacking:
        shown = ", ".join(lacking[:3]) + f" and {len(lacking) - 3} more" * (len(lacking) > 3)
        raise UsageError(f"{str(folder)!r} lacks the true music of {shown}: put files of those names there")
    twice = [name for name in names if len(found[name]) > 1]
    if twice:
        raise UsageError(f"{str(folder)!r} has more than one file for {', '.join(twice)}: leave one")
    return {name: found[name][0] for name in names}


def evaluate_paths(places: Sequence[str]) -> dict[str, Row]:
    """A row for each video named or in a folder named, by its name."""
    return evaluate_files(videos_by_name(places))


def evaluate_files(paths: Mapping[str, Path]) -> dict[str, Row]:
    from tqdm import tqdm

    work = tqdm(paths.items(), total=len(paths), desc="videos", unit="video", disable=None)
    return {name: evaluate_file(path) for name, path in work}


def clip_name(path: Path) -> str:
    return path.name.split(".v2m.")[0] if ".v2m." in path.name else path.stem


def _list_files(place: Path, suffixes: Iterable[str]) -> list[Path]:
    if not place.is_dir():
        return [place]
    found = sorted(each for each in place.iterdir() if each.suffix.lower() in suffixes and each.name[0] != ".")
    if not found:
        raise InvalidInputError("no_videos", f"{str(place)!r} holds no videos ({', '.join(sorted(suffixes))})")
    return found
