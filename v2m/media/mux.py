"""Sound beside copied pictures: which container holds what, ffmpeg's command line, and proof that it did as told."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.audio_ops import apply_gain
from v2m.core.errors import UsageError
from v2m.core.timing import clock_seconds, sample_count
from v2m.core.types import Audio, Floats, ProgressFn, Video
from v2m.media.ffmpeg import DISCONTINUOUS_FORMATS, file_url, input_arguments, open_media, run_ffmpeg

if TYPE_CHECKING:
    from av.container import InputContainer

BLOCK_SAMPLES = 1 << 16
VIDEO_ONLY_FORMATS = {"gif", "apng"}  # hold no sound: their pictures are encoded anew
# 4:2:0 needs even sides
H264_ARGUMENTS = (*("-c:v", "libx264", "-crf", "16", "-preset", "fast", "-pix_fmt", "yuv420p", "-fps_mode",
"passthrough"),
        *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"))  # fmt: skip


@dataclass(frozen=True)
class Container:
    """A kind of file: its name among demuxers and muxers, what encodes sound for it, its text subtitles."""

    demuxer: str
    muxer: str
    audio_encoder: tuple[str, ...]
    subtitle_codec: str | None = None
    multiple_audio_tracks: bool = True


# The fast coder takes half the time, and at this rate lies nearer to its input (measured: 35 dB against 31 at 192k).
AAC_ARGUMENTS = ("aac", "-aac_coder", "fast", "-b:a:0", "256k")
OPUS_ARGUMENTS, MP3_ARGUMENTS = ("libopus", "-b:a:0", "160k"), ("libmp3lame", "-b:a:0", "192k")
MP4 = Container("mov", "mp4", AAC_ARGUMENTS, "mov_text")
MPEG_TS = Container("mpegts", "mpegts", AAC_ARGUMENTS)
MPEG_PS = Container("mpeg", "mpeg", ("mp2", "-b:a:0", "256k"))
CONTAINERS = {
    ".mp4": MP4,
    ".m4v": MP4,
    ".mov": Container("mov", "mov", AAC_ARGUMENTS, "mov_text"),
    ".3gp": Container("mov", "3gp", AAC_ARGUMENTS, "mov_text"),
    ".mkv": Container("matroska", "matroska", AAC_ARGUMENTS, "srt"),
    ".webm": Container("matroska", "webm", OPUS_ARGUMENTS, "webvtt"),
    # AVI cannot say that a codec starts late (23 ms for MP3), so only PCM would be in time
    ".avi": Container("avi", "avi", ("pcm_s16le",)),
    ".ts": MPEG_TS,
    ".mts": MPEG_TS,
    ".m2ts": Container("mpegts", "mpegts", (*AAC_ARGUMENTS, "-mpegts_m2ts_mode", "1")),
    ".mpg": MPEG_PS,
    ".mpeg": MPEG_PS,
    ".flv": Container("flv", "flv", AAC_ARGUMENTS, multiple_audio_tracks=False),
    ".wmv": Container("asf", "asf", MP3_ARGUMENTS),
    ".ogv": Container("ogg", "ogg", OPUS_ARGUMENTS),
}
DEFAULT_SUFFIXES = {
    "mov": ".mp4",
    "gif": ".mp4",
    "apng": ".mp4",
    "mpegts": ".ts",
    "mpeg": ".mpg",
    "flv": ".flv",
    "asf": ".wmv",
}
DEFAULT_SUFFIXES |= {"avi": ".avi", "ogg": ".ogv"}


def container_for(out: Path) -> Container:
    """Raises UsageError where the suffix of `out` is none that can hold a video with music."""
    found = CONTAINERS.get(out.suffix.lower())
    if found is None:
        raise UsageError(
            f"{out.name}: {out.suffix or 'no suffix'} is not one of {' '.join(CONTAINERS)}, and it is no folder"
        )
    return found


def default_suffix(video: Video) -> str:
    """The suffix of `video` where that says what it is and can hold music, otherwise one that can."""
    names = video.container.split(",")
    own = CONTAINERS.get(video.path.suffix.lower())
    if own is not None and own.demuxer in names:
        return video.path.suffix
    return next((DEFAULT_SUFFIXES[name] for name in names if name in DEFAULT_SUFFIXES), ".mkv")


def is_same_format(video: Video, container: Container) -> bool:
    return container.demuxer in video.container.split(",")


def needs_reencode(video: Video) -> bool:
    """Whether the pictures cannot be copied, as nothing that holds them holds sound."""
    return bool(VIDEO_ONLY_FORMATS & set(video.container.split(",")))


@dataclass(frozen=True)
class MuxJob:
    """One file to write: `sound` times `gain` (one value per `audio_ops.HOP`) becomes the first and default track.

    `kept` are the audio streams of the input that go along.
    """

    video: Video
    container: Container
    audio: Audio
    gain: Floats
    kept_tracks: Sequence[int]
    metadata: Mapping[str, str]

    @property
    def leading_silence(self) -> float:
        """Seconds of silence before the sound: AVI has no times but counts, so that nothing in it can start late."""
        return (
            self.video.offset if self.container.demuxer == "avi" and is_same_format(self.video, self.container) else 0.0
        )

    @property
    def copies_subtitles(self) -> bool:
        return is_same_format(self.video, self.container) or self.container.subtitle_codec is not None


def mux(job: MuxJob, out: Path, timeout: float, progress: ProgressFn | None = None) -> None:
    """Writes `out` with ffmpeg; `progress` is told how much of the sound it has taken.

    Raises:
        FFmpegError, OSError: See `v2m.media.ffmpeg.run`.
    """
    with open_media(job.video.path) as media, tempfile.TemporaryDirectory(prefix="v2m-") as folder:
        # ffmpeg joins the parts of a clock that restarts, but only without -copyts, and then its 0 is elsewhere
        joined = bool(DISCONTINUOUS_FORMATS & set(job.video.container.split(",")))
        start = _earliest_start(media, job) if joined else 0.0
        command = [
            *([] if joined else ["-copyts"]),
            *("-itsoffset", f"{start - job.video.offset + job.leading_silence:.6f}", *input_arguments(job.video.path)),
            *("-f", "f32le", "-ar", str(job.audio.sample_rate), "-ch_layout", "stereo"),
            *("-protocol_whitelist", "pipe", "-i", "pipe:0"),
            *_stream_arguments(job, VideoTracks.from_container(media), Path(folder)),
            *_metadata_arguments(job, media.metadata),
            *("-f", job.container.muxer, file_url(out)),
        ]
        run_ffmpeg(command, _pcm_chunks(job, progress), timeout)


@dataclass(frozen=True)
class VideoTracks:
    """Which streams of a container hold moving pictures, and the covers (still pictures) in it."""

    video: tuple[int, ...]
    covers: tuple[int, ...]

    @classmethod
    def from_container(cls, media: InputContainer) -> VideoTracks:
        from av.stream import Disposition

        still = Disposition.attached_pic
        covers = tuple(stream.index for stream in media.streams.video if stream.disposition & still)
        return cls(tuple(stream.index for stream in media.streams.video if stream.index not in covers), covers)


def _earliest_start(media: InputContainer, job: MuxJob) -> float:
    """The first time stamp in the streams that are used, in seconds."""
    used = [stream for stream in media.streams if stream.type != "audio" or stream.index in job.kept_tracks]
    times = [clock_seconds(stream.start_time, stream.time_base) for stream in used if stream.start_time is not None]
    return min(times, default=0.0)


def _stream_arguments(job: MuxJob, tracks: VideoTracks, folder: Path) -> list[str]:
    same = is_same_format(job.video, job.container)
    chosen = [f"0:{index}" for index in tracks.video]
    words = ["-c", "copy", *(H264_ARGUMENTS if needs_reencode(job.video) else ())]
    if job.container.muxer == "mp4":
        chosen += [f"0:{index}" for index in tracks.covers]
    chosen += ["1:a", *(f"0:{index}" for index in job.kept_tracks)]
    if job.copies_subtitles:
        chosen.append("0:s?")
        if job.container.subtitle_codec and (not same or job.container.muxer == "webm"):
            words += ["-c:s", job.container.subtitle_codec]
    if job.container.muxer == "matroska":
        chosen += ["0:t?"] if same else []
        present = sum(stream.kind == "attachment" for stream in job.video.streams) if same else 0
        words += _cover_arguments(job.video.path, tracks.covers, folder, present)
    kept = [word for number in range(1, len(job.kept_tracks) + 1) for word in (f"-disposition:a:{number}", "-default")]
    maps = [word for stream in chosen for word in ("-map", stream)]
    return [*maps, *words, "-c:a:0", *job.container.audio_encoder, "-disposition:a:0", "default", *kept]


def _cover_arguments(path: Path, covers: Sequence[int], folder: Path, num_attachments: int) -> list[str]:
    """Matroska holds covers as attachments: copied as streams they would turn into further videos.

    `present` attachments stand before them.
    """
    words: list[str] = []
    for number, index in enumerate(covers, num_attachments):
        with open_media(path) as media:
            stream = media.streams.video[[video.index for video in media.streams.video].index(index)]
            kind = "jpeg" if stream.codec_context.name == "mjpeg" else stream.codec_context.name
            picture = folder / f"cover{index}.{kind}"
            picture.write_bytes(bytes(next(media.demux(stream))))
        words += ["-attach", file_url(picture), f"-metadata:s:t:{number}", f"mimetype=image/{kind}"]
        words += [f"-metadata:s:t:{number}", f"filename={'cover' if index == covers[0] else picture.stem}.{kind}"]
    return words


def _metadata_arguments(job: MuxJob, source_metadata: Mapping[str, str]) -> list[str]:
    words = ["-map_metadata", "0", "-map_chapters", "0"]
    old = {name.lower(): value for name, value in source_metadata.items()}
    for name, value in job.metadata.items():
        before = old.get(name.lower(), "")
        words += ["-metadata", f"{name}={value if not before or value in before else f'{before}; {value}'}"]
    language = next((stream.language for stream in job.video.audio_streams), None)
    if job.kept_tracks and language:
        words += ["-metadata:s:a:0", f"language={language}"]
    if job.container.demuxer == "mov":
        # without the second flag, what a phone says of itself (com.apple.quicktime.make, location …) would be lost
        apple = "+use_metadata_tags" if any(name.startswith("com.apple.") for name in old) else ""
        words += ["-movflags", f"+faststart{apple}"]
    return words


def _pcm_chunks(job: MuxJob, progress: ProgressFn | None) -> Iterator[bytes]:
    yield bytes(8 * sample_count(job.leading_silence, job.audio.sample_rate))  # two floats a sample
    for start in range(0, len(job.audio), BLOCK_SAMPLES):
        piece = job.audio.samples[:, start : start + BLOCK_SAMPLES].copy()
        apply_gain(piece, job.gain, start)
        yield piece.T.tobytes()
        if progress is not None:
            progress(min(1.0, (start + BLOCK_SAMPLES) / len(job.audio)))
