"""The last step: music and the clip's own sound, brought to a loudness, beside the copied pictures in a new file."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v2m.analysis.loudness import amplitude_to_db, integrated_loudness, peak_envelope
from v2m.core.atomic import check_output, no_space, publish, temporary_sibling
from v2m.core.audio_ops import HOP
from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain, seconds_of
from v2m.core.types import Audio, ProgressFn, Video
from v2m.media.audio import read_track
from v2m.media.ffmpeg import FFmpegError, ffmpeg_version
from v2m.media.mux import MuxJob, container_for, default_suffix, is_same_format, mux, needs_reencode
from v2m.media.verify import StreamFingerprint, diff_streams, fingerprint_streams
from v2m.mixing.mastering import Levels, Mastering
from v2m.mixing.mixdown import SAMPLE_RATE, MixConfig, Mixdown, mix_tracks

__all__ = ["MixConfig", "MixReport", "default_output", "mix", "validate_output"]

CODEC_HEADROOM_DB = 0.7  # dB: what a codec usually adds to the peaks, or another meter's filter reads more near 20 kHz
DISK_FULL_BYTES = 1 << 20  # bytes; with less left the disk is taken to be full
MAX_ATTEMPTS = 4  # of writing, each limited harder where the decoded peaks did not fit
METER_MARGIN_DB = 0.2  # dB that the decoded peaks have to stay below the ceiling by this meter
LOUDNESS_WARNING_LU = 1.0  # LU
WEBM_CODECS = {"av1", "vp8", "vp9"}


@dataclass(frozen=True)
class MixReport:
    """What was done and what came of it. Loudness in LUFS and None for silence, gains in dB, peak in dBTP.

    loudness, true_peak: measured on the finished file's decoded sound. limited: the most the limiter took away.
    ducked: share of the time in which the music gave way, None without ducking. tracks: audio streams of the file.
    """

    duration: float
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
    limiter_reduction: float
    ducked_share: float | None
    num_audio_tracks: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def default_output(video: Video, suffix: str = ".v2m") -> Path:
    """The file beside `video` with `suffix` in its name, in a container that holds music."""
    return video.path.with_name(f"{video.path.stem}{suffix}{default_suffix(video)}")


def validate_output(video: Video, out: Path, overwrite: bool) -> None:
    """Says before any long work what would go wrong at its end.

    Raises:
        UsageError, OSError: See `check_output`. UsageError also where the container does not hold these pictures.
        DependencyError: There is no ffmpeg.
    """
    check_output(video.path, out, overwrite)
    container = container_for(out)
    if needs_reencode(video) and container.muxer not in {"mp4", "mov", "matroska"}:
        raise UsageError(f"{out.name}: pictures of a {video.container} are written to mp4, mov or mkv")
    if container.muxer == "webm" and video.codec not in WEBM_CODECS:
        raise UsageError(
            f"{out.name}: webm holds {', '.join(sorted(WEBM_CODECS))} and not {video.codec}: give a .mkv output"
        )
    ffmpeg_version()


def mix(  # noqa: PLR0917 - what, with what, where to, how
    video: Video,
    music: Audio,
    out: Path,
    config: MixConfig | None = None,
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
        DependencyError: There is no ffmpeg.
        OSError: The disk is full or cannot be written to.
        RuntimeError: ffmpeg failed, or the file it wrote is not what was asked for. Nothing is left behind then.
    """
    assert video.start == 0, "the mixer takes the whole video; settings.start and settings.end choose a span"
    config = config or MixConfig()
    validate_output(video, out, overwrite)
    container = container_for(out)
    _check_music(music)
    blended = mix_tracks(video, music, config)
    kept = video.audio_streams if config.original != "replace" and container.multiple_audio_tracks else ()
    tracks = tuple(stream.index for stream in kept)
    job = MuxJob(video, container, blended.audio, np.ones(0), tracks, metadata or {})
    with temporary_sibling(out) as temporary:
        mastering, heard, peak = _write_below_ceiling(
            job, blended.target_loudness, config.true_peak, temporary, progress
        )
        publish(temporary, out)
    loud = integrated_loudness(heard)
    return MixReport(
        duration=seconds_of(len(heard), SAMPLE_RATE),
        sample_rate=SAMPLE_RATE,
        container=container.muxer,
        codec=container.audio_encoder[0].removeprefix("lib"),
        ffmpeg=ffmpeg_version(),
        original=config.original,
        music_loudness=_round_finite(blended.music_loudness),
        original_loudness=_round_finite(blended.original_loudness),
        loudness=_round_finite(loud),
        true_peak=_round_finite(peak),
        gain=round(mastering.gain, 2),
        limiter_reduction=round(mastering.max_reduction, 2),
        ducked_share=None if blended.ducked_share is None else round(blended.ducked_share, 4),
        num_audio_tracks=1 + len(kept),
        warnings=(*blended.warnings, *_mix_warnings(job, config, blended, loud)),
    )


def _check_music(music: Audio) -> None:
    if not 1 <= music.channels <= 2 or not len(music):
        raise ValueError(f"music must be mono or stereo and not empty, not {music.samples.shape}")
    if not np.isfinite(music.samples).all():
        raise ValueError("music holds NaN or infinite samples")


def _write_below_ceiling(
    job: MuxJob, target: float | None, ceiling: float, temporary: Path, progress: ProgressFn | None
) -> tuple[Mastering, Audio, float]:
    """Writes `temporary` until the peaks of its decoded sound fit under `ceiling`: codecs add to them.

    Returns what the mastering was, the decoded sound and its true peak.
    """
    given = fingerprint_streams(job.video.path, nal_units=not is_same_format(job.video, job.container))
    levels, rounds = Levels.from_audio(job.audio), 0
    while True:
        mastering = levels.master(target, ceiling - CODEC_HEADROOM_DB)
        gain = mastering.limiter_curve * db_to_gain(mastering.gain)
        made = _mux_and_verify(replace(job, gain=gain), given, temporary, progress)
        heard, _ = read_track(temporary, made.audio_streams[0], made.first_pts, job.video.duration, SAMPLE_RATE)
        peaks = peak_envelope(heard.samples, HOP)
        peak = float(amplitude_to_db(peaks.max()))
        rounds += 1
        if peak <= ceiling - METER_MARGIN_DB or rounds == MAX_ATTEMPTS:
            return mastering, heard, peak
        levels = levels.with_peak_margin(peaks / db_to_gain(ceiling - 2 * METER_MARGIN_DB))


def _mux_and_verify(
    job: MuxJob, given: StreamFingerprint, temporary: Path, progress: ProgressFn | None
) -> StreamFingerprint:
    """Raises UsageError for streams the container does not hold, OSError for a full disk, RuntimeError otherwise."""
    from av.error import FFmpegError as UnreadableError

    same = is_same_format(job.video, job.container)
    timeout = 120 + job.video.duration * (30 if needs_reencode(job.video) else 4) + job.video.path.stat().st_size / 1e6
    try:
        mux(job, temporary, timeout, progress)
        made = fingerprint_streams(temporary, nal_units=not same)
        found = diff_streams(job, given, made)
    except UnreadableError as error:
        made, found = given, [f"cannot be read back ({error})"]
    except FFmpegError as error:
        if job.container.muxer == "matroska":  # which holds everything
            raise
        others = ".mkv" if same else f"{default_suffix(job.video)} or .mkv"
        raise UsageError(
            f"{job.video.path.name} cannot be written as {temporary.suffix} ({error}): give a {others} output"
        ) from error
    if (
        found and shutil.disk_usage(temporary.parent).free < DISK_FULL_BYTES
    ):  # ffmpeg has been seen to end well on a full disk
        raise no_space()
    if found:
        raise RuntimeError(f"the video was not written: what ffmpeg made {'; '.join(found)}")
    return made


def _mix_warnings(job: MuxJob, config: MixConfig, blended: Mixdown, loud: float) -> list[str]:
    found = []
    if needs_reencode(job.video):
        found.append(f"pictures_encoded: {job.video.container} holds no sound, so the pictures were encoded as H.264")
    left = len(job.video.audio_streams) - len(job.kept_tracks)
    if left > (1 if config.original == "replace" else 0):
        found.append(f"tracks_left_out: {left} audio tracks of the clip are not in the result")
    if not job.copies_subtitles and any(stream.kind == "subtitle" for stream in job.video.streams):
        found.append(f"subtitles_left_out: {job.container.muxer} holds no text subtitles")
    if blended.target_loudness is not None and not abs(loud - blended.target_loudness) <= LOUDNESS_WARNING_LU:
        found.append(f"loudness_not_reached: {loud:.1f} LUFS instead of {blended.target_loudness:g}")
    return found


def _round_finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 2)
