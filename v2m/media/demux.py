"""Opening a media file with PyAV and walking its video packets: what prober and decoder share. Runs in the child."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from v2m.core.errors import InvalidInputError
from v2m.core.timing import clock_seconds
from v2m.media.ffmpeg import DISCONTINUOUS_FORMATS

VIDEO_FORMATS = ("mov", "matroska", "avi", "asf", "flv", "mpegts", "mpeg", "ogg", "gif", "apng", "mxf")
# Known only so that a refusal can say what the file is. A format in neither list is not opened at all: a playlist,
# above all, would read other files.
AUDIO_FORMATS = ("mp3", "wav", "w64", "flac", "aac", "aiff", "ac3", "eac3", "amr", "ape", "caf", "au", "tta", "wv")
IMAGE_FORMATS = ("png", "jpeg", "webp", "bmp", "tiff", "gif", "jpegxl", "ppm", "qoi", "exr", "psd", "svg", "dds", "sgi")
ELEMENTARY_FORMATS = (
    "dv",
    "h264",
    "hevc",
    "vvc",
    "av1",
    "obu",
    "ivf",
    "m4v",
    "mpegvideo",
    "yuv4mpegpipe",
    "vc1",
    "nut",
    "rm",
    "wtv",
)


def open_media(path: str, max_pixels: int) -> InputContainer:
    """The file at the absolute `path`, and no other: neither protocols nor playlists are followed.

    Raises InvalidInputError `not_media` where FFmpeg makes nothing of it.
    """
    formats = ",".join(
        (*VIDEO_FORMATS, *AUDIO_FORMATS, *(f"{name}_pipe" for name in IMAGE_FORMATS), *ELEMENTARY_FORMATS)
    )
    options = {"protocol_whitelist": "file", "format_whitelist": formats, "max_pixels": str(max_pixels)}
    try:
        return av.open(f"file:{path}", "r", options=options, metadata_errors="replace", timeout=(10, 10))
    except FFmpegError as error:
        raise InvalidInputError("not_media", "is not a video, or its index is missing or broken") from error


def select_video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is not cover art. Raises InvalidInputError where there is none that can be played."""
    name = container.format.name
    if name.endswith("_pipe"):
        raise InvalidInputError("image", f"is a still image ({name.removesuffix('_pipe')}); give a video")
    if not set(name.split(",")) & {*VIDEO_FORMATS, *AUDIO_FORMATS}:
        raise InvalidInputError("container", f"is a bare {name} stream; put it into mp4, mov, mkv or webm first")
    streams = [stream for stream in container.streams if isinstance(stream, VideoStream)]
    moving = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise InvalidInputError("no_video", "holds no video stream; give a video")
    if moving[0].codec_context is None:
        raise InvalidInputError("codec", "holds video in an unknown codec; convert it to H.264 first")
    return moving[0]


def demux_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """The packets of `streams` (all without any) until the file ends or cannot be read on."""
    try:
        yield from container.demux(*streams)
    except (FFmpegError, IndexError):  # at the end, PyAV stumbles over a stream that appeared on the way
        return


def video_packets(packets: Iterable[Packet], stream: VideoStream) -> Iterator[Packet]:
    """The packets of `stream` among `packets`, from its first key frame on, on one continuous clock.

    What lies before the first key frame cannot be decoded; players and a stream copy leave it out as well.
    """
    restarting = stream.container.format.name in DISCONTINUOUS_FORMATS
    started, shift, expected = False, 0, None
    for packet in packets:
        if packet.stream_index != stream.index or packet.size == 0:
            continue
        started = started or packet.is_keyframe
        if not started:
            continue
        if restarting and packet.dts is not None:
            if (
                expected is not None
                and not -0.1 <= clock_seconds(packet.dts + shift - expected, stream.time_base) <= 10
            ):
                shift = expected - packet.dts
            expected = packet.dts + shift + (packet.duration or 0)
        if shift and packet.pts is not None:
            packet.pts += shift
        yield packet
