"""Demuxing for the prober and the decoder: opening a video and walking its packets. Runs in the decoder process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from v2m.core.errors import InvalidInputError
from v2m.core.timing import clock_seconds
from v2m.media.ffmpeg import AUDIO_FORMATS, VIDEO_FORMATS, has_discontinuous_clock, open_media

# Opened only so that a refusal can say what the file is. A format in none of these lists is not opened at all: a
# playlist, above all, would read other files.
MORE_AUDIO_FORMATS = ("ac3", "eac3", "amr", "ape", "tta", "wv")
IMAGE_FORMATS = ("png", "jpeg", "webp", "bmp", "tiff", "gif", "jpegxl", "ppm", "qoi", "exr", "psd", "svg", "dds", "sgi")
# fmt: off
ELEMENTARY_FORMATS = (
    "dv", "h264", "hevc", "vvc", "av1", "obu", "ivf", "m4v", "mpegvideo", "yuv4mpegpipe", "vc1", "nut", "rm", "wtv",
)
# fmt: on
PROBED_FORMATS = (
    *VIDEO_FORMATS,
    *AUDIO_FORMATS,
    *MORE_AUDIO_FORMATS,
    *(f"{name}_pipe" for name in IMAGE_FORMATS),
    *ELEMENTARY_FORMATS,
)
OPEN_TIMEOUT_S = 10.0


def open_video(path: str, max_pixels: int) -> InputContainer:
    """Open the file at `path`, which may turn out to hold no video.

    Raises InvalidInputError `not_media` where FFmpeg does not recognize it.
    """
    try:
        return open_media(Path(path), PROBED_FORMATS, max_pixels=max_pixels, timeout=OPEN_TIMEOUT_S)
    except FFmpegError as error:
        raise InvalidInputError("not_media", "is not a video, or its index is missing or broken") from error


def select_video_stream(container: InputContainer) -> VideoStream:
    """Return the first video stream that is not cover art. Raises InvalidInputError where none can be played."""
    name = container.format.name
    if name.endswith("_pipe"):
        raise InvalidInputError("image", f"is a still image ({name.removesuffix('_pipe')}); give a video")
    if not set(name.split(",")) & {*VIDEO_FORMATS, *AUDIO_FORMATS, *MORE_AUDIO_FORMATS}:
        raise InvalidInputError("container", f"is a bare {name} stream; put it into mp4, mov, mkv or webm first")
    for stream in container.streams:
        if isinstance(stream, VideoStream) and not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise InvalidInputError("codec", "holds video in an unknown codec; convert it to H.264 first")
            return stream
    raise InvalidInputError("no_video", "holds no video stream; give a video")


def demux_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """Yield the packets of `streams`, or of all if none are given, until the file ends or cannot be read on."""
    try:
        yield from container.demux(*streams)
    except (FFmpegError, IndexError):  # PyAV raises IndexError at the end for a stream that appeared on the way
        return


def video_packets(packets: Iterable[Packet], stream: VideoStream) -> Iterator[Packet]:
    """Yield the packets of `stream` among `packets`, from its first key frame on, on one continuous clock.

    Packets before the first key frame cannot be decoded; players and a stream copy leave them out as well.
    """
    discontinuous = has_discontinuous_clock(stream.container.format.name)
    started, shift, expected = False, 0, None
    for packet in packets:
        if packet.stream_index != stream.index or packet.size == 0:
            continue
        started = started or packet.is_keyframe
        if not started:
            continue
        if discontinuous and packet.dts is not None:
            if (
                expected is not None
                and not -0.1 <= clock_seconds(packet.dts + shift - expected, stream.time_base) <= 10
            ):
                shift = expected - packet.dts
            expected = packet.dts + shift + (packet.duration or 0)
        if shift and packet.pts is not None:
            packet.pts += shift
        yield packet
