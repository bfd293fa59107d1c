"""The last step: music and the clip's own sound, brought to a loudness, beside the copied pictures in a new file."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v2m.analysis.loudness import decibels, integrated_loudness, peak_envelope
from v2m.core.atomic import check_output, no_space, publish, temporary_sibling
from v2m.core.audio_ops import HOP
from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain, seconds_of
from v2m.core.types import Audio, ProgressFn, Video
from v2m.media.audio import read_track
from v2m.media.ffmpeg import FFmpegError, version
from v2m.media.mux import Job, container_of, encoded_anew, same_kind, usual_suffix, write
from v2m.media.verify import Fingerprint, differences, fingerprint
from v2m.mixing.mastering import Levels, Mastering
from v2m.mixing.mixdown import SAMPLE_RATE, Blend, Mix, blend

__all__ = ["Mix", "MixReport", "check", "default_output", "mix"]

HEADROOM = 0.7  # dB: what a codec usually adds to the peaks, or another meter's filter reads more near 20 kHz
FULL = 1 << 20  # bytes; with less left the disk is taken to be full
ROUNDS = 4  # of writing, each limited harder where the decoded peaks did not fit
EXTRA = 0.2  # dB that the decoded peaks have to stay below the ceiling by this meter
NEAR = 1.0  # LU
WEBM = {"av1", "vp8", "vp9"}


@dataclass(frozen=True)
class MixReport:
    """What was done and what came of it. Loudness in LUFS and None for silence, gains in dB, peak in dBTP.

    loudness, true_peak: measured on the finished file's decoded sound. limited: the most the limiter took away.
    ducked: share of the time in which the music gave way, None without ducking. tracks: audio streams of the file.
    """

    seconds: float
    sample_rate: int
    container: str
    codec: str
    ffmpeg: str
    original: str
    music_loudness: float | None
    original_loudness: float | None
    loudness: float | None
    true_peak: float | None
    gain: float
    limited: float
    ducked: float | None
    tracks: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def default_output(video: Video, suffix: str = ".v2m") -> Path:
    """The file beside `video` with `suffix` in its name, in a container that holds music."""
    return video.path.with_name(f"{video.path.stem}{suffix}{usual_suffix(video)}")


def check(video: Video, out: Path, overwrite: bool) -> None:
    """Says before any long work what would go wrong at its end.

    Raises:
        UsageError, OSError: See `check_output`. UsageError also where the container does not hold these pictures.
        MissingError: There is no ffmpeg.
    """
    check_output(video.path, out, overwrite)
    container = container_of(out)
    if encoded_anew(video) and container.muxer not in {"mp4", "mov", "matroska"}:
        raise UsageError(f"{out.name}: pictures of a {video.container} are written to mp4, mov or mkv")
    if container.muxer == "webm" and video.codec not in WEBM:
        raise UsageError(f"{out.name}: webm holds {', '.join(sorted(WEBM))} and not {video.codec}: give a .mkv output")
    version()


def mix(  # noqa: PLR0917 - what, with what, where to, how
    video: Video,
    music: Audio,
    out: Path,
    settings: Mix | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: ProgressFn | None = None,
) -> MixReport:
    """Writes `video`, its pictures copied bit for bit, with `music` to `out`.

    The music begins with the first shown picture (or at `settings.start`) and the sound ends with the last. Subtitles,
    chapters, tags, attachments and cover art go along. The mix is the first and default audio track; with keep and
    duck the clip's own tracks follow it unchanged, with replace they are left out.

    Args:
        video: The whole file, not a span of it.
        music: Mono or stereo at any rate; cut, or filled up with silence, to the length of its part of the video.
        out: Its suffix chooses the container, the container the codec.
        settings: How loud, and what becomes of the clip's own sound.
        metadata: Tags for the file, joined to its own of the same name. `comment`, `title` and `description` survive in
            mp4, mov, mkv and webm; other names in mkv and webm only; none in MPEG streams.
        overwrite: Whether `out` may be replaced.
        progress: Told how much of the sound ffmpeg has taken.

    Raises:
        UsageError: See `check`; the container does not hold these streams; the span lies outside the video.
        ValueError: The music is empty, has more than two channels, or holds NaN or infinity.
        MissingError: There is no ffmpeg.
        OSError: The disk is full or cannot be written to.
        RuntimeError: ffmpeg failed, or the file it wrote is not what was asked for. Nothing is left behind then.
    """
    assert video.start == 0, "the mixer takes the whole video; settings.start and settings.end choose a span"
    settings = settings or Mix()
    check(video, out, overwrite)
    container = container_of(out)
    _check_music(music)
    blended = blend(video, music, settings)
    kept = video.audio_streams if settings.original != "replace" and container.several_tracks else ()
    tracks = tuple(stream.index for stream in kept)
    job = Job(video, container, blended.audio, np.ones(0), tracks, metadata or {})
    with temporary_sibling(out) as temporary:
        mastering, heard, peak = _settled(job, blended.target, settings.true_peak, temporary, progress)
        publish(temporary, out)
    loud = integrated_loudness(heard)
    return MixReport(
        seconds=seconds_of(len(heard), SAMPLE_RATE),
        sample_rate=SAMPLE_RATE,
        container=container.muxer,
        codec=container.encoder[0].removeprefix("lib"),
        ffmpeg=version(),
        original=settings.original,
        music_loudness=_finite(blended.music_loudness),
        original_loudness=_finite(blended.original_loudness),
        loudness=_finite(loud),
        true_peak=_finite(peak),
        gain=round(mastering.gain, 2),
        limited=round(mastering.reduction, 2),
        ducked=None if blended.ducked is None else round(blended.ducked, 4),
        tracks=1 + len(kept),
        warnings=(*blended.warnings, *_warnings(job, settings, blended, loud)),
    )


def _check_music(music: Audio) -> None:
    if not 1 <= music.channels <= 2 or not len(music):
        raise ValueError(f"music must be mono or stereo and not empty, not {music.samples.shape}")
    if not np.isfinite(music.samples).all():
        raise ValueError("music holds NaN or infinite samples")


def _settled(
    job: Job, target: float | None, ceiling: float, temporary: Path, progress: ProgressFn | None
) -> tuple[Mastering, Audio, float]:
    """Writes `temporary` until the peaks of its decoded sound fit under `ceiling`: codecs add to them.

    Returns what the mastering was, the decoded sound and its true peak.
    """
    given = fingerprint(job.video.path, units=not same_kind(job.video, job.container))
    levels, rounds = Levels.of(job.sound), 0
    while True:
        mastering = levels.master(target, ceiling - HEADROOM)
        gain = mastering.curve * db_to_gain(mastering.gain)
        made = _written(replace(job, gain=gain), given, temporary, progress)
        heard, _ = read_track(temporary, made.sounds[0], made.zero, job.video.duration, SAMPLE_RATE)
        peaks = peak_envelope(heard.samples, HOP)
        peak = float(decibels(peaks.max()))
        rounds += 1
        if peak <= ceiling - EXTRA or rounds == ROUNDS:
            return mastering, heard, peak
        levels = levels.raised(peaks / db_to_gain(ceiling - 2 * EXTRA))


def _written(job: Job, given: Fingerprint, temporary: Path, progress: ProgressFn | None) -> Fingerprint:
    """Raises UsageError for streams the container does not hold, OSError for a full disk, RuntimeError otherwise."""
    from av.error import FFmpegError as UnreadableError

    same = same_kind(job.video, job.container)
    timeout = 120 + job.video.duration * (30 if encoded_anew(job.video) else 4) + job.video.path.stat().st_size / 1e6
    try:
        write(job, temporary, timeout, progress)
        made = fingerprint(temporary, units=not same)
        found = differences(job, given, made)
    except UnreadableError as error:
        made, found = given, [f"cannot be read back ({error})"]
    except FFmpegError as error:
        if job.container.muxer == "matroska":  # which holds everything
            raise
        others = ".mkv" if same else f"{usual_suffix(job.video)} or .mkv"
        raise UsageError(
            f"{job.video.path.name} cannot be written as {temporary.suffix} ({error}): give a {others} output"
        ) from error
    if found and shutil.disk_usage(temporary.parent).free < FULL:  # ffmpeg has been seen to end well on a full disk
        raise no_space()
    if found:
        raise RuntimeError(f"the video was not written: what ffmpeg made {'; '.join(found)}")
    return made


def _warnings(job: Job, settings: Mix, blended: Blend, loud: float) -> list[str]:
    found = []
    if encoded_anew(job.video):
        found.append(f"pictures_encoded: {job.video.container} holds no sound, so the pictures were encoded as H.264")
    left = len(job.video.audio_streams) - len(job.kept)
    if left > (1 if settings.original == "replace" else 0):
        found.append(f"tracks_left_out: {left} audio tracks of the clip are not in the result")
    if not job.keeps_subtitles and any(stream.kind == "subtitle" for stream in job.video.streams):
        found.append(f"subtitles_left_out: {job.container.muxer} holds no text subtitles")
    if blended.target is not None and not abs(loud - blended.target) <= NEAR:
        found.append(f"loudness_not_reached: {loud:.1f} LUFS instead of {blended.target:g}")
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 2)
