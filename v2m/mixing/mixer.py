"""The mixer: music and the clip's own sound, mastered, beside the copied pictures in a new file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v2m.analysis.loudness import amplitude_to_db, integrated_loudness, peak_envelope
from v2m.core import mapped_array
from v2m.core.atomic import check_output, no_space, publish, temporary_sibling
from v2m.core.audio_ops import HOP
from v2m.core.disk_space import free_bytes
from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain, samples_to_seconds
from v2m.core.types import Audio, ProgressFn, Video
from v2m.media.audio import read_track
from v2m.media.ffmpeg import FFmpegError, ffmpeg_version
from v2m.media.inventory import take_inventory
from v2m.media.mux import MuxJob, container_for, default_suffix, is_same_format, mux, mux_timeout, needs_reencode
from v2m.media.stream_plan import StreamPlan, loss_warnings, plan_streams
from v2m.media.verify import StreamFingerprint, diff_streams, fingerprint_streams
from v2m.mixing.mastering import Levels, Mastering
from v2m.mixing.mixdown import SAMPLE_RATE, MixConfig, Mixdown, mix_tracks

CODEC_HEADROOM_DB = 0.7  # what a codec usually adds to the peaks, or another meter reads more near 20 kHz
DISK_FULL_BYTES = 1 << 20  # with less left the disk counts as full
MAX_ATTEMPTS = 4  # of writing, each limited harder where the decoded peaks were too high
METER_MARGIN_DB = 0.2  # by which the decoded peaks must stay below the ceiling
LOUDNESS_WARNING_LU = 1.0  # from the target


@dataclass(frozen=True)
class MixReport:
    """A report of the mix. Loudness in LUFS and None for silence, gains in dB, peak in dBTP.

    `loudness` and `true_peak` are measured on the finished file's decoded sound, `range_loudness` where music is in it;
    `limiter_reduction` is the largest; `ducked_share` of the time the music is ducked, None without ducking.
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
    range_loudness: float | None
    true_peak: float | None
    gain: float
    limiter_reduction: float
    ducked_share: float | None
    num_audio_tracks: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def default_output(video: Video, suffix: str = ".v2m") -> Path:
    """Return the path beside `video` with `suffix` in its name, in a container that holds music."""
    return video.path.with_name(f"{video.path.stem}{suffix}{default_suffix(video)}")


def validate_output(video: Video, out: Path, overwrite: bool) -> None:
    """Raise before any long work the errors that would occur at its end.

    Raises:
        UsageError: As `check_output`, or the container does not hold these pictures.
        OSError: As `check_output`.
        DependencyError: There is no ffmpeg.
    """
    check_output(video.path, out, overwrite)
    container_for(out)
    ffmpeg_version()


def validate_streams(video: Video, out: Path, config: MixConfig) -> StreamPlan:
    """Return the streams that the output keeps.

    Raises UsageError where its container cannot hold the pictures, and for a `config.track` that is not there.
    """
    video.audio_track(config.track)
    return plan_streams(video, out, config.original != "replace")


def mix(  # noqa: PLR0917 - what, with what, where to, how
    video: Video,
    music: Audio,
    out: Path,
    config: MixConfig | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: ProgressFn | None = None,
    plan: StreamPlan | None = None,
) -> MixReport:
    """Write `video` with `music` to `out`, its pictures copied bit for bit.

    The music starts with the first shown picture (or at `config.start`) and the audio ends with the last. Subtitles,
    data tracks, chapters, tags, attachments, cover art and side data are copied where the container takes them; the
    report's warnings name the others. The mix is the first and default audio track; with keep and duck the clip's own
    tracks follow it unchanged, with replace they are left out.

    Args:
        video: The whole file, not a span of it.
        music: Mono or stereo at any rate; cut, or filled up with silence, to the length of its part of the video.
        out: Its suffix chooses the container, the container the codec.
        config: Loudness, fades and the clip's own sound.
        metadata: Tags for the file, joined to its own of the same name. `comment`, `title` and `description` survive in
            mp4, mov, mkv and webm; other names in mkv and webm only; none in MPEG streams.
        overwrite: Whether `out` may be replaced.
        progress: The share of the audio that ffmpeg has read.
        plan: What `validate_streams` has returned for these arguments, where it was called before.

    Raises:
        UsageError: As `validate_output` and `validate_streams`; the span lies outside the video.
        ValueError: The music is empty, has more than two channels, or holds NaN or infinity.
        DependencyError: There is no ffmpeg.
        OSError: The disk is full or cannot be written to.
        RuntimeError: ffmpeg failed, or its file is not as requested; nothing is left behind.
    """
    assert video.start == 0, "the mixer takes the whole video; config.start and config.end choose a range"
    config = config or MixConfig()
    validate_output(video, out, overwrite)
    plan, container = plan or validate_streams(video, out, config), container_for(out)
    if not 1 <= music.channels <= 2 or not len(music):
        raise ValueError(f"music must be mono or stereo and not empty, not {music.samples.shape}")
    if not all(np.isfinite(music.samples[:, part]).all() for part in mapped_array.chunks(len(music))):
        raise ValueError("music holds NaN or infinite samples")
    with ThreadPoolExecutor(1) as pool:  # reading the file's packets takes longer than mixing
        nal_units = not is_same_format(video, container)
        fingerprint = pool.submit(fingerprint_streams, video.media_path, nal_units=nal_units)
        mixdown = mix_tracks(video, music, config)
        levels = Levels.from_audio(mixdown.audio)
        source = fingerprint.result()
    job = MuxJob(
        video, container, mixdown.audio, np.ones(0), plan.streams, metadata or {}, hvc1_streams=source.hvc1_streams
    )
    original = video.audio_track(config.track)
    if original is not None and job.of_kind("audio"):
        job = replace(job, language=original.language)
    target, ceiling = mixdown.target_loudness, config.true_peak
    with temporary_sibling(out) as temporary, ThreadPoolExecutor(1) as pool:
        mastering, decoded, peak = _write_below_ceiling(job, levels, source, target, ceiling, temporary, progress)
        inventory = pool.submit(take_inventory, temporary)
        loudness = range_loudness = integrated_loudness(decoded)
        if mixdown.music_range != slice(0, len(decoded)):
            range_loudness = integrated_loudness(Audio(decoded.samples[:, mixdown.music_range], SAMPLE_RATE))
        output = inventory.result()
        publish(temporary, out)
    return MixReport(
        duration=samples_to_seconds(len(decoded), SAMPLE_RATE),
        sample_rate=SAMPLE_RATE,
        container=container.muxer,
        codec=container.audio_encoder[0].removeprefix("lib"),
        ffmpeg=ffmpeg_version(),
        original=config.original,
        music_loudness=_round_finite(mixdown.music_loudness),
        original_loudness=_round_finite(mixdown.original_loudness),
        loudness=_round_finite(loudness),
        range_loudness=_round_finite(range_loudness),
        true_peak=_round_finite(peak),
        gain=round(mastering.gain, 2),
        limiter_reduction=round(mastering.max_reduction, 2),
        ducked_share=None if mixdown.ducked_share is None else round(mixdown.ducked_share, 4),
        num_audio_tracks=len(output.of_kind("audio")),
        warnings=(
            *mixdown.warnings,
            *_mix_warnings(job, mixdown, config, range_loudness if config.original == "replace" else loudness),
            *loss_warnings(job, plan.source, output, config.original != "replace"),
        ),
    )


def _write_below_ceiling(  # noqa: PLR0917 - what, measured how, to which levels, where to
    job: MuxJob,
    levels: Levels,
    source: StreamFingerprint,
    target: float | None,
    ceiling: float,
    temporary: Path,
    progress: ProgressFn | None,
) -> tuple[Mastering, Audio, float]:
    """Write until the decoded peaks fit under `ceiling`; return mastering, decoded audio, true peak.

    `levels` are those of the job's audio, `source` is the fingerprint of its video file.
    """
    attempt = 0
    while True:
        attempt += 1
        mastering = levels.master(target, ceiling - CODEC_HEADROOM_DB)
        gain = mastering.limiter_curve * db_to_gain(mastering.gain)
        output = _mux_and_verify(replace(job, gain=gain), source, temporary, progress)
        decoded, _ = read_track(temporary, output.audio_streams[0], output.first_pts, job.video.duration, SAMPLE_RATE)
        peaks = peak_envelope(decoded.samples, HOP)
        peak = float(amplitude_to_db(peaks.max()))
        if peak <= ceiling - METER_MARGIN_DB or attempt == MAX_ATTEMPTS:
            return mastering, decoded, peak
        levels = levels.with_peak_margin(peaks / db_to_gain(ceiling - 2 * METER_MARGIN_DB))


def _mux_and_verify(
    job: MuxJob, source: StreamFingerprint, temporary: Path, progress: ProgressFn | None
) -> StreamFingerprint:
    """Write a file once and verify it.

    Raises UsageError for streams that the container cannot hold, OSError for a full disk, RuntimeError otherwise.
    """
    from av.error import FFmpegError as UnreadableError

    same = is_same_format(job.video, job.container)
    try:
        mux(job, temporary, mux_timeout(job.video), progress)
        output = fingerprint_streams(temporary, nal_units=not same, header=source.header)
        problems = diff_streams(job, source, output)
    except UnreadableError as error:
        output, problems = source, [f"cannot be read back ({error})"]
    except FFmpegError as error:
        if job.container.muxer == "matroska":  # which holds everything
            raise
        others = ".mkv" if same else f"{default_suffix(job.video)} or .mkv"
        problem = f"{job.video.path.name} cannot be written as {temporary.suffix} ({error})"
        raise UsageError(f"{problem}: give a {others} output") from error
    # ffmpeg can exit with 0 on a full disk.
    if problems and free_bytes(temporary.parent) < DISK_FULL_BYTES:
        raise no_space()
    if problems:
        raise RuntimeError(f"the video was not written: what ffmpeg made {'; '.join(problems)}")
    return output


def _mix_warnings(job: MuxJob, mixdown: Mixdown, config: MixConfig, loudness: float) -> list[str]:
    """Return the warnings of a mix whose part that has a target is as loud as `loudness`."""
    warnings = []
    if needs_reencode(job.video):
        reason = f"{job.video.container} holds no sound, so the pictures were encoded as H.264"
        warnings.append(f"pictures_encoded: {reason}")
    target = config.lufs if math.isfinite(mixdown.music_loudness) else None
    if target is not None and not abs(loudness - target) <= LOUDNESS_WARNING_LU:
        warnings.append(f"loudness_not_reached: {loudness:.1f} LUFS instead of {target:g}")
    return warnings


def _round_finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 2)
