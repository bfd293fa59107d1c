"""Decoding in the decoder process, in sequence (PyAV) or sparse (decord); F frames, H height, W width."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from av.codec.context import ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v2m.core.errors import InvalidInputError
from v2m.core.timing import ticks_to_seconds
from v2m.core.types import Pixels
from v2m.media.ffmpeg import (
    AUDIO_FORMATS,
    VIDEO_FORMATS,
    VIDEO_ONLY_FORMATS,
    has_discontinuous_clock,
    is_still_item,
    open_media,
    picture_streams,
)

# Opened only so that a refusal can say what the file is. A format in none of these lists is not opened at all: a
# playlist, above all, would read other files.
MORE_AUDIO_FORMATS = ("ac3", "eac3", "amr", "ape", "tta", "wv")
IMAGE_FORMATS = ("png", "jpeg", "webp", "bmp", "tiff", "gif", "jpegxl", "ppm", "qoi", "exr", "psd", "svg", "dds", "sgi")
ELEMENTARY_FORMATS = (
    *("dv", "h264", "hevc", "vvc", "av1", "obu", "ivf", "m4v", "mpegvideo", "yuv4mpegpipe", "vc1", "nut", "rm", "wtv"),
    *(f"{name}_pipe" for name in IMAGE_FORMATS),
)
UNDECODABLE_FORMAT = "jpegxl_anim"  # for which the ffmpeg program has no decoder
PROBED_FORMATS = (*VIDEO_FORMATS, *AUDIO_FORMATS, *MORE_AUDIO_FORMATS, *ELEMENTARY_FORMATS, UNDECODABLE_FORMAT)
OPEN_TIMEOUT_S = 10.0
MIN_DECODABLE_RATIO = 0.25  # of the packets; encrypted or misnamed streams give a few frames of noise
CHUNK_BYTES = 1 << 20
NUM_THREADS = min(8, os.cpu_count() or 1)  # each frame thread holds frames: 8K on 16 of them would need gigabytes
SINGLE_THREADED_CODECS = {"vp9"}  # decord fails on them with more than one thread


def open_video(path: str, max_pixels: int) -> InputContainer:
    """Open a file that may hold no video. Raise InvalidInputError `not_media` where FFmpeg cannot."""
    try:
        return open_media(Path(path), PROBED_FORMATS, max_pixels=max_pixels, timeout=OPEN_TIMEOUT_S)
    except FFmpegError as error:
        raise InvalidInputError("not_media", "is not a video, or its index is missing or broken") from error


def select_video_stream(container: InputContainer) -> VideoStream:
    """Return the first video stream but covers and still items.

    Raises InvalidInputError where none can be played.
    """
    name = container.format.name
    if name == UNDECODABLE_FORMAT:
        raise InvalidInputError("container", "is an animated JPEG XL; convert it to APNG, animated WebP or a video")
    if name.endswith("_pipe"):
        raise InvalidInputError("image", f"is a still image ({name.removesuffix('_pipe')}); give a video")
    if not set(name.split(",")) & {*VIDEO_FORMATS, *AUDIO_FORMATS, *MORE_AUDIO_FORMATS}:
        raise InvalidInputError("container", f"is a bare {name} stream; put it into mp4, mov, mkv or webm first")
    for stream in picture_streams(container):
        if stream.codec_context is None:
            raise InvalidInputError("codec", "holds video in an unknown codec; convert it to H.264 first")
        return stream
    if any(is_still_item(stream) for stream in container.streams.video):
        raise InvalidInputError("image", f"is a still image ({container.metadata.get('major_brand')}); give a video")
    raise InvalidInputError("no_video", "holds no video stream; give a video")


def demux_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """Yield the packets of `streams` (none: of all) until the file ends or cannot be read on."""
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
            jump = 0.0 if expected is None else ticks_to_seconds(packet.dts + shift - expected, stream.time_base)
            if expected is not None and not -0.1 <= jump <= 10:
                shift = expected - packet.dts
            expected = packet.dts + shift + (packet.duration or 0)
        if shift and packet.pts is not None:
            packet.pts += shift
        yield packet


@dataclass(frozen=True)
class Orientation:
    """The steps from a coded to an upright frame: swap its axes, then mirror left-right and top-bottom."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise; 0 where the frame is (also) mirrored."""
        turns = {(False, True, True): 180, (True, True, False): 90, (True, False, True): 270}
        return turns.get((self.transpose, self.mirror_x, self.mirror_y), 0)

    def apply(self, image: Pixels) -> Pixels:
        image = image.transpose(1, 0, 2) if self.transpose else image
        return image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


@dataclass
class DecodeStats:
    """Counts of decoding, of the whole file if `complete`; the decoder itself flags `num_corrupt` frames."""

    num_packets: int = 0
    num_frames: int = 0
    num_errors: int = 0
    num_corrupt: int = 0
    is_transparent: bool = False  # of pictures that have to be encoded again, which loses that
    complete: bool = False

    @property
    def is_decodable(self) -> bool:
        return self.num_frames > 0 and self.num_frames >= MIN_DECODABLE_RATIO * self.num_packets


def decode_frames(container: InputContainer, stream: VideoStream, stats: DecodeStats) -> Iterator[VideoFrame]:
    """Yield every frame that can be decoded; a packet that cannot be costs only its own."""
    context = stream.codec_context
    context.thread_type, context.thread_count = ThreadType.AUTO, NUM_THREADS
    context.options = {"max_pixels": container.options["max_pixels"]}
    may_be_transparent = container.format.name in VIDEO_ONLY_FORMATS
    for packet in chain(video_packets(demux_packets(container, stream), stream), [None]):
        stats.num_packets += packet is not None and not packet.is_discard
        for frame in _decode_packet(stream, packet, stats):
            if may_be_transparent and not stats.is_transparent:
                stats.is_transparent = _is_transparent(frame)
            yield frame
    stats.complete = True


def _is_transparent(frame: VideoFrame) -> bool:
    """Return whether any pixel is not opaque."""
    has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    return has_alpha and bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


def _decode_packet(stream: VideoStream, packet: Packet | None, stats: DecodeStats) -> list[VideoFrame]:
    try:
        frames = stream.codec_context.decode(packet)
    except FFmpegError:
        stats.num_errors += 1
        return []
    stats.num_frames += len(frames)
    stats.num_corrupt += sum(frame.is_corrupt for frame in frames)
    return frames


class SeekError(Exception):
    """decord cannot read this file, or reads it wrongly."""


def seek_frames(path: str, codec: str, indices: Sequence[int], size: Sequence[int], count: int) -> Iterator[Pixels]:
    """Yield the frames of rising `indices` in display order, in chunks (F, H, W, 3); `size` is W, H.

    Raises SeekError where decord fails or does not find `count` frames. Some files also keep it busy for ever: the
    parent's time limit is the only cure.
    """
    width, height = size
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        threads = 1 if codec in SINGLE_THREADED_CODECS else NUM_THREADS
        reader = decord.VideoReader(path, width=width, height=height, num_threads=threads)
        if len(reader) != count:
            raise SeekError(f"found {len(reader)} frames instead of {count}")
        step = max(1, CHUNK_BYTES // (3 * width * height))
        for first in range(0, len(indices), step):
            images = reader.get_batch(list(indices[first : first + step])).asnumpy()
            if images.shape[1:] != (height, width, 3):
                raise SeekError(f"gave frames of shape {images.shape[1:]} instead of {(height, width, 3)}")
            yield images
    except SeekError:
        raise
    except Exception as error:  # decord's errors have no class of their own, and their text is a C++ stack
        raise SeekError(f"failed on it ({type(error).__name__})") from error
