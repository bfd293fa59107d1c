"""Plan of the streams that an output keeps, by a trial before the work; warnings of what it lacks."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Video
from v2m.media.ffmpeg import FFmpegError, open_media
from v2m.media.inventory import Inventory, StreamRecords, pair_streams, take_inventory
from v2m.media.mux import (
    CONTAINERS,
    DATA_CODEC,
    DATA_TAG,
    Container,
    MuxJob,
    PlannedStream,
    container_for,
    default_suffix,
    is_same_format,
    mux,
    mux_timeout,
    needs_reencode,
)

TRIAL_S = 0.5
SILENCE = Audio(np.zeros((2, seconds_to_samples(TRIAL_S, 48_000)), np.float32), 48_000)
WARNINGS = {
    "video": "pictures",
    "cover": "covers",
    "still": "stills",
    "alpha": "transparency",
    "subtitle": "subtitles",
    "data": "data",
    "attachment": "attachments",
}


@dataclass(frozen=True)
class StreamPlan:
    """The streams of `source` that go into an output beside the music."""

    source: Inventory
    streams: tuple[PlannedStream, ...]


def plan_streams(video: Video, out: Path, keeps_audio: bool) -> StreamPlan:
    """Return the streams that the container of `out` takes, by a trial of its header and first packets.

    Raises UsageError where it does not even take the pictures and music, with the suffix of a container that does.
    """
    container, source = container_for(out), take_inventory(video.media_path)
    keeps_audio = keeps_audio and container.multiple_audio_tracks
    wanted = [_options(video, container, stream) for stream in source.streams if stream.kind != "audio" or keeps_audio]
    streams = [options[0] for options in wanted if options]
    if _trial_error(video, container, source, streams) is None:
        return StreamPlan(source, tuple(streams))
    main = PlannedStream(source.of_kind("video")[0].index, "video")
    error = _trial_error(video, container, source, [main])
    if error is not None:
        suffixes = dict.fromkeys((default_suffix(video).lower(), ".mkv", *CONTAINERS))
        trials = (suffix for suffix in suffixes if not _trial_error(video, CONTAINERS[suffix], source, [main]))
        suffix = next(trials, None)
        if suffix is None or CONTAINERS[suffix] is container:
            raise error  # not because of the container
        problem = f"{video.path.name} cannot be written as {out.suffix} ({str(error).rstrip('.')})"
        raise UsageError(f"{problem}: give a {suffix} output") from error
    kept = [main]
    for options in wanted:
        possible = (option for option in options if not _trial_error(video, container, source, [main, option]))
        kept.append(main if main in options else next(possible, main))
    return StreamPlan(source, tuple(dict.fromkeys(kept)))


def loss_warnings(job: MuxJob, source: Inventory, output: Inventory, keeps_audio: bool) -> list[str]:
    """Return warnings, by name, of every stream and record of the input that is not in the output.

    Without `keeps_audio` the music takes the place of one audio stream.
    """
    muxer, pairs = job.container.muxer, list(pair_streams(source, output, [stream.index for stream in job.streams]))
    copied = {stream.index for stream, _ in pairs}
    left = [stream for stream in source.streams if stream.index not in copied]
    tracks = [stream.label for stream in left if stream.kind == "audio"]
    warnings = []
    if len(tracks) > (not keeps_audio):
        names = f" ({', '.join(tracks)})" if keeps_audio else ""
        warnings.append(f"tracks_left_out: {len(tracks)} audio tracks of the clip are not in the result{names}")
    for kind, name in WARNINGS.items():
        labels = ", ".join(stream.label for stream in left if stream.kind == kind)
        warnings += [f"{name}_left_out: {muxer} does not hold {labels}"] if labels else []
    lost = {"the file": [name for name in source.records if name not in output.records]}
    lost["the file"] += ["chapters"] if output.num_chapters < source.num_chapters else []
    for stream, copy in pairs:
        if stream.kind == "subtitle" and stream.codec != copy.codec:
            warnings.append(f"subtitles_converted: {stream.codec} became {copy.codec}")
        number = source.of_kind(stream.kind).index(stream) + 1
        lost[f"{stream.kind} track {number}"] = [] if needs_reencode(job.video) else stream.lost_records(copy)
    held = [(", ".join(names), place) for place, names in lost.items() if names]
    return [*warnings, *(f"records_lost: {muxer} does not hold {names} of {place}" for names, place in held)]


def _options(video: Video, container: Container, stream: StreamRecords) -> tuple[PlannedStream, ...]:
    """Return the ways to write a stream, the best first."""
    same, muxer, kind = is_same_format(video, container), container.muxer, stream.kind
    copy = PlannedStream(stream.index, kind)
    if kind == "subtitle" and stream.is_text:
        converted = () if container.subtitle_codec is None else (replace(copy, codec=container.subtitle_codec),)
        return (copy, *converted) if same and muxer != "webm" else converted
    if kind == "data" and container.demuxer == "mov" and stream.tag != DATA_TAG:
        copy = replace(copy, codec=DATA_CODEC)
    takes = {
        "video": True, "audio": True, "cover": muxer in {"mp4", "mov", "matroska"},
        "attachment": same and muxer == "matroska", "subtitle": same or muxer in {"matroska", "mpegts"},
        "data": same and container.demuxer in {"mov", "mpegts"},
    }  # fmt: skip
    return (copy,) if takes.get(kind) else ()


def _trial_error(
    video: Video, container: Container, source: Inventory, streams: Sequence[PlannedStream]
) -> FFmpegError | None:
    """Return how ffmpeg fails to write the first moments of these streams, or to read them again."""
    job = MuxJob(video, container, SILENCE, np.ones(1), streams, {})
    # Without room for a trial the work goes on; whether the output can be written is another question.
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix="v2m-") as folder:
        try:
            mux(job, Path(folder, "trial"), mux_timeout(video), max_duration=TRIAL_S)
            if not is_same_format(video, container) and not needs_reencode(video):
                _check_codecs(job, source, Path(folder, "trial"))
        except FFmpegError as error:
            return error
    return None


def _check_codecs(job: MuxJob, source: Inventory, path: Path) -> None:
    """Raise FFmpegError where a stream reads as another codec: some muxers write what none reads."""
    from av.error import FFmpegError as UnreadableError

    written: dict[str, list[str]] = {"video": [], "audio": []}
    with contextlib.suppress(UnreadableError), open_media(path) as media:
        for stream in media.streams:
            if stream.codec_context is not None:
                written.setdefault(stream.type, []).append(stream.codec_context.codec.canonical_name)
    codecs = {stream.index: stream.codec for stream in source.streams}
    copied = {kind: [codecs[stream.index] for stream in job.of_kind(kind)] for kind in written}
    sound = written["audio"][1:]  # behind silence; a track may also begin later than the trial ends
    if written["video"][:1] != copied["video"][:1] or (len(sound) == len(copied["audio"]) and sound != copied["audio"]):
        raise FFmpegError(f"its streams would read back as {', '.join([*written['video'], *sound]) or 'unknown'}")
