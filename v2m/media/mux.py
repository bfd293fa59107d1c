"""Muxing: a mix beside copied video streams, containers that can hold it, and small silent previews."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core import mapped_array
from v2m.core.atomic import publish, temporary_sibling
from v2m.core.audio_ops import apply_gain
from v2m.core.errors import UsageError
from v2m.core.timing import is_slideshow, seconds_to_samples, ticks_to_seconds
from v2m.core.types import Audio, Floats, ProgressFn, Video
from v2m.media.ffmpeg import (
    VIDEO_ONLY_FORMATS,
    FFmpegError,
    file_url,
    has_discontinuous_clock,
    input_arguments,
    open_media,
    picture_streams,
    run_ffmpeg,
)
from v2m.media.inventory import MACINTOSH_LANGUAGES
from v2m.media.iso_bmff import Entry, add_covers, read_entries, restore_entries, restore_file_boxes, restore_tracks

if TYPE_CHECKING:
    from av.container import InputContainer

BLOCK_SAMPLES = 1 << 16
# Without B-frames the last picture keeps its duration where durations vary.
X264_ARGUMENTS = ("-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p", "-fps_mode", "passthrough")
EVEN_SIDES = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # which 4:2:0 needs
H264_ARGUMENTS = (*X264_ARGUMENTS, "-crf", "16", "-preset", "fast", "-vf", EVEN_SIDES)
PREVIEW_ARGUMENTS = (*X264_ARGUMENTS, "-preset", "veryfast", "-crf", "28", "-movflags", "+faststart")
MAX_PREVIEW_HEIGHT = 240  # pixels
DATA_CODEC, DATA_TAG = "bin_data", "gpmd"  # FFmpeg's name for data of any kind, and how its MP4 muxer tags them


@dataclass(frozen=True)
class Container:
    """A container format: FFmpeg's demuxer, muxer, audio encoder arguments and codec of text subtitles."""

    demuxer: str
    muxer: str
    audio_encoder: tuple[str, ...]
    subtitle_codec: str | None = None
    multiple_audio_tracks: bool = True
    random_ids: bool = False  # FFmpeg marks each file by a random number, unless told not to


# The fast coder takes half the time, and at this rate lies nearer to its input (measured: 35 dB against 31 at 192k).
AAC_ARGUMENTS = ("aac", "-aac_coder", "fast", "-b:a:0", "256k")
OPUS_ARGUMENTS, MP3_ARGUMENTS = ("libopus", "-b:a:0", "160k"), ("libmp3lame", "-b:a:0", "192k")
MP4 = Container("mov", "mp4", AAC_ARGUMENTS, "mov_text")
MPEG_TS = Container("mpegts", "mpegts", AAC_ARGUMENTS)
MPEG_PS = Container("mpeg", "mpeg", ("mp2", "-b:a:0", "256k"))
CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v"), MP4),
    ".mov": Container("mov", "mov", AAC_ARGUMENTS, "mov_text"),
    ".3gp": Container("mov", "3gp", AAC_ARGUMENTS, "mov_text"),
    ".mkv": Container("matroska", "matroska", AAC_ARGUMENTS, "srt", random_ids=True),
    ".webm": Container("matroska", "webm", OPUS_ARGUMENTS, "webvtt", random_ids=True),
    # AVI cannot declare an encoder's delay (23 ms for MP3), so only PCM is in time.
    ".avi": Container("avi", "avi", ("pcm_s16le",)),
    **dict.fromkeys((".ts", ".mts"), MPEG_TS),
    ".m2ts": Container("mpegts", "mpegts", (*AAC_ARGUMENTS, "-mpegts_m2ts_mode", "1")),
    **dict.fromkeys((".mpg", ".mpeg"), MPEG_PS),
    ".flv": Container("flv", "flv", AAC_ARGUMENTS, multiple_audio_tracks=False),
    ".wmv": Container("asf", "asf", MP3_ARGUMENTS),
    ".ogv": Container("ogg", "ogg", OPUS_ARGUMENTS, random_ids=True),
}
DEFAULT_SUFFIXES = {
    "mov": ".mp4", "gif": ".mp4", "apng": ".mp4", "webp": ".mp4", "mpegts": ".ts", "mpeg": ".mpg", "flv": ".flv",
    "asf": ".wmv", "avi": ".avi", "ogg": ".ogv",
}  # fmt: skip


def container_for(out: Path) -> Container:
    """Return the container of an output path. Raise UsageError where its suffix stands for none."""
    container = CONTAINERS.get(out.suffix.lower())
    if container is None:
        suffix, known = out.suffix or "no suffix", " ".join(CONTAINERS)
        raise UsageError(f"{out.name}: {suffix} is not one of {known}, and it is no folder")
    return container


def default_suffix(video: Video) -> str:
    """Return the suffix of `video` where it fits its format and can hold music, otherwise one that can."""
    names = video.container.split(",")
    container = CONTAINERS.get(video.path.suffix.lower())
    if container is not None and container.demuxer in names:
        return video.path.suffix
    return next((DEFAULT_SUFFIXES[name] for name in names if name in DEFAULT_SUFFIXES), ".mkv")


def is_same_format(video: Video, container: Container) -> bool:
    return container.demuxer in video.container.split(",")


def needs_reencode(video: Video) -> bool:
    """Return whether the pictures cannot be copied, as no container holds both them and audio."""
    return bool(VIDEO_ONLY_FORMATS & set(video.container.split(",")))


@dataclass(frozen=True)
class PlannedStream:
    """A stream of the input to write: copied, or a text subtitle converted."""

    index: int
    kind: str  # as of `v2m.media.inventory.StreamRecords`
    codec: str = "copy"  # `DATA_CODEC` for data that ffmpeg has no name for


@dataclass(frozen=True)
class MuxJob:
    """A file to write."""

    video: Video
    container: Container
    audio: Audio  # times `gain` the first and default track
    gain: Floats  # one value per `audio_ops.HOP`
    streams: Sequence[PlannedStream]  # of the input; its audio streams follow the first
    metadata: Mapping[str, str]
    language: str | None = None  # of the first track
    hvc1_streams: Sequence[int] = ()  # indices of HEVC streams whose parameter sets are all in their header

    @property
    def leading_silence(self) -> float:
        """Seconds of silence before the audio. AVI has no times: none of its streams can start late."""
        from_avi = self.container.demuxer == "avi" and is_same_format(self.video, self.container)
        return self.video.offset if from_avi else 0.0

    def of_kind(self, kind: str) -> list[PlannedStream]:
        return [stream for stream in self.streams if stream.kind == kind]


def mux(
    job: MuxJob, out: Path, timeout: float, progress: ProgressFn | None = None, max_duration: float | None = None
) -> None:
    """Write `out` with ffmpeg; `progress` is the share of the audio that ffmpeg has read.

    `max_duration` ends all streams early. Raises FFmpegError and OSError as `v2m.media.ffmpeg.run_ffmpeg`.
    """
    path, folders = job.video.media_path, tempfile.TemporaryDirectory(prefix="v2m-", dir=out.parent)
    with open_media(path) as media, folders as folder:
        # ffmpeg joins the parts of a discontinuous clock only without -copyts, which moves the clock's 0.
        joined = has_discontinuous_clock(job.video.container)
        start = _earliest_start(media, job) if joined else 0.0
        offset = ("-itsoffset", f"{start - job.video.offset + job.leading_silence:.6f}")
        data = _write_unnamed_data(media, job, Path(folder, "data.mp4"), max_duration)
        command = [
            *([] if joined else ["-copyts"]),
            *(*offset, *input_arguments(path)),
            *("-f", "f32le", "-ar", str(job.audio.sample_rate), "-ch_layout", "stereo"),
            *("-protocol_whitelist", "pipe", "-i", "pipe:0"),
            *([] if data is None else (*offset, *input_arguments(data))),
            *_stream_arguments(job, Path(folder), _muxer_writes_covers(job, media.metadata)),
            *_metadata_arguments(job, media),
            *([] if max_duration is None else ("-t", str(max_duration), "-copyinkf")),
            *(("-fflags", "+bitexact") if job.container.random_ids else ()),
            *("-f", job.container.muxer, file_url(out)),
        ]
        run_ffmpeg(command, _pcm_chunks(job, progress), timeout)
        if job.container.muxer in {"mp4", "mov"} and not _muxer_writes_covers(job, media.metadata):
            add_covers(out, [_read_cover(path, stream.index) for stream in job.of_kind("cover")])
        if job.container.demuxer == "mov" and is_same_format(job.video, job.container):
            pairs = list(_entry_pairs(job, media, read_entries(out)))
            restore_entries(out, pairs)
            restore_file_boxes(out, path)
            restore_tracks(out, path, {entry.track_id: copy.track_id for entry, copy in pairs if entry.track_id})


def mux_timeout(video: Video) -> float:
    """Return the seconds after which writing a copy of `video` counts as hanging."""
    return 120 + video.duration * (30 if needs_reencode(video) else 4) + video.path.stat().st_size / 1e6


def _earliest_start(media: InputContainer, job: MuxJob) -> float:
    copied = {stream.index for stream in job.streams}
    starts = [(s.start_time, s.time_base) for s in media.streams if s.index in copied or s.type != "audio"]
    return min((ticks_to_seconds(start, base) for start, base in starts if start is not None), default=0.0)


def _write_unnamed_data(media: InputContainer, job: MuxJob, out: Path, max_duration: float | None) -> Path | None:
    """Write data tracks that ffmpeg would not copy to MP4 to their own file, under a name that it knows."""
    streams = {stream.index: media.streams[stream.index] for stream in job.streams if stream.codec == DATA_CODEC}
    if not streams:
        return None
    import av
    from av.stream import Discard

    for stream in media.streams:
        stream.discard = Discard.default if stream.index in streams else Discard.all
    with av.open(file_url(out), "w", format="mp4") as output:
        copies = {index: output.add_data_stream(DATA_CODEC) for index in streams}
        for index, copy in copies.items():
            copy.time_base = streams[index].time_base
            copy.metadata.update(streams[index].metadata)
        for packet in media.demux(*streams.values()):
            if packet.size and packet.dts is not None:
                if max_duration is not None and ticks_to_seconds(packet.dts, packet.time_base) > max_duration:
                    break
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    return out


def _entry_pairs(job: MuxJob, media: InputContainer, output: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Yield the entries of copied streams and of the file: of the input, of the output."""
    source = read_entries(job.video.path)
    by_track = {entry.track_id: entry for entry in source}
    sound = [entry for entry in output if entry.handler == "soun"]
    video, data = ([e for e in output if value in {e.handler, e.kind}] for value in ("vide", DATA_TAG))
    for kind, copies in (("video", video), ("audio", sound[1:]), ("data", data)):
        originals = [by_track.get(media.streams[stream.index].id) for stream in job.of_kind(kind)]
        yield from ((entry, copy) for entry, copy in zip(originals, copies, strict=False) if entry is not None)
    for kind in ("tmcd", "udta"):
        yield from zip(*([entry for entry in side if entry.kind == kind] for side in (source, output)), strict=False)


def _has_apple_tags(metadata: Mapping[str, str]) -> bool:
    return any(name.lower().startswith("com.apple.") for name in metadata)


def _muxer_writes_covers(job: MuxJob, metadata: Mapping[str, str]) -> bool:
    """Return whether ffmpeg writes covers that are mapped as streams: to plain MP4 tags only."""
    return job.container.muxer == "mp4" and not _has_apple_tags(metadata)


def _stream_arguments(job: MuxJob, folder: Path, maps_covers: bool) -> list[str]:
    muxer, num_audio = job.container.muxer, 1 + len(job.of_kind("audio"))
    covers = [stream.index for stream in job.of_kind("cover")]
    unnamed = [stream.index for stream in job.streams if stream.codec == DATA_CODEC]
    streams = [f"0:{stream.index}" for stream in job.of_kind("video")]
    streams += [f"0:{index}" for index in covers] if maps_covers else []
    streams += ["1:a", *(f"0:{stream.index}" for kind in ("audio", "subtitle") for stream in job.of_kind(kind))]
    data = [stream.index for stream in job.of_kind("data")]
    streams += [f"2:{unnamed.index(index)}" if index in unnamed else f"0:{index}" for index in data]
    streams += [f"0:{stream.index}" for stream in job.of_kind("attachment")]
    hvc1 = job.hvc1_streams if job.container.demuxer == "mov" else ()  # which Apple's players insist on
    words = ["-c", "copy", *(H264_ARGUMENTS if needs_reencode(job.video) else ())]
    for number, stream in enumerate(job.of_kind("subtitle")):
        words += [f"-c:s:{number}", stream.codec]
    for number, stream in enumerate(job.of_kind("video")):
        words += [f"-tag:v:{number}", "hvc1"] if stream.index in hvc1 else []
    if job.container.demuxer == "mov" and not needs_reencode(job.video):
        words += _hold_arguments(job.video)
    words += ["-strict", "unofficial"] if muxer == "mp4" else []  # for the boxes of spherical and Dolby Vision video
    if muxer == "matroska":
        words += _cover_arguments(job.video.path, covers, folder, len(job.of_kind("attachment")))
    kept = [word for number in range(1, num_audio) for word in (f"-disposition:a:{number}", "-default")]
    maps = [word for stream in streams for word in ("-map", stream)]
    return [*maps, *words, "-c:a:0", *job.container.audio_encoder, "-disposition:a:0", "default", *kept]


def _hold_arguments(video: Video) -> list[str]:
    """Return arguments by which the last picture of a slideshow lasts to its end; none for other videos."""
    times = video.timestamps
    if not is_slideshow(times):
        return []
    seconds = video.duration - float(times[-1])
    return ["-bsf:v:0", rf"setts=pts=PTS:dts=DTS:duration=if(eq(N\,{len(times) - 1})\,{seconds:.6f}/TB\,DURATION)"]


def _cover_arguments(path: Path, covers: Sequence[int], folder: Path, num_attachments: int) -> list[str]:
    """Return arguments that attach covers to Matroska: copied as streams they would turn into videos."""
    words: list[str] = []
    for number, index in enumerate(covers, num_attachments):
        kind, data = _read_cover(path, index)
        picture = folder / f"cover{index}.{kind}"
        picture.write_bytes(data)
        words += ["-attach", file_url(picture), f"-metadata:s:t:{number}", f"mimetype=image/{kind}"]
        words += [f"-metadata:s:t:{number}", f"filename={'cover' if index == covers[0] else picture.stem}.{kind}"]
    return words


def _read_cover(path: Path, index: int) -> tuple[str, bytes]:
    """Return the format of a cover, such as jpeg or png, and its file."""
    with open_media(path) as media:
        stream = media.streams.video[[video.index for video in media.streams.video].index(index)]
        kind = "jpeg" if stream.codec_context.name == "mjpeg" else stream.codec_context.name
        return kind, bytes(next(media.demux(stream)))


def _metadata_arguments(job: MuxJob, media: InputContainer) -> list[str]:
    words = ["-map_metadata", "0", "-map_chapters", "0"]
    old = {name.lower(): value for name, value in media.metadata.items()}
    for name, value in job.metadata.items():
        before = old.get(name.lower(), "")
        words += ["-metadata", f"{name}={value if not before or value in before else f'{before}; {value}'}"]
    if job.language:
        words += ["-metadata:s:a:0", f"language={job.language}"]
    for letter, kind, first in (("v", "video", 0), ("a", "audio", 1), ("s", "subtitle", 0)):
        for number, stream in enumerate(job.of_kind(kind), first):
            tags, place = media.streams[stream.index].metadata, f"-metadata:s:{letter}:{number}"
            if "name" in tags:  # as FFmpeg reads what it writes of a title
                words += [place, f"title={tags.get('title', tags['name'])}", place, "name="]
            if job.container.muxer == "mov" and (code := MACINTOSH_LANGUAGES.get(tags.get("language", ""))):
                words += [place, f"language={code}"]
    if job.container.demuxer == "mov":
        # Without the second flag, a phone's tags (com.apple.quicktime.make, location …) would be lost.
        apple = "+use_metadata_tags" if _has_apple_tags(old) else ""
        words += ["-movflags", f"+faststart{apple}"]
    return words


def _pcm_chunks(job: MuxJob, progress: ProgressFn | None) -> Iterator[bytes]:
    yield bytes(8 * seconds_to_samples(job.leading_silence, job.audio.sample_rate))  # two floats a sample
    for part in mapped_array.chunks(len(job.audio), BLOCK_SAMPLES):
        chunk = job.audio.samples[:, part].copy()
        apply_gain(chunk, job.gain, part.start)
        yield chunk.T.tobytes()
        if progress is not None:
            progress(part.stop / len(job.audio))


def write_preview(video: Video, out: Path) -> None:
    """Write a small silent copy of a whole video to an MP4 `out`, atomically, over an older one.

    Raises FFmpegError and OSError as `v2m.media.ffmpeg.run_ffmpeg`.
    """
    from av.error import FFmpegError as UnreadableError

    assert video.start == 0, "a preview shows a span from the start of the file"
    size = f"scale=-2:'min({MAX_PREVIEW_HEIGHT},trunc(ih/2)*2)',setsar=1"  # 4:2:0 needs even sides
    try:
        with open_media(video.media_path) as media:
            index = picture_streams(media)[0].index
    except UnreadableError as error:
        raise FFmpegError(f"{video.path.name} cannot be read ({error})") from error
    output = ["-map", f"0:{index}", "-t", f"{video.duration:.6f}", "-vf", size, *PREVIEW_ARGUMENTS]
    output += _hold_arguments(video)
    with temporary_sibling(out) as temporary:
        command = [*input_arguments(video.media_path), *output, "-f", "mp4", file_url(temporary)]
        run_ffmpeg(command, (), timeout=120 + 30 * video.duration)
        publish(temporary, out)
