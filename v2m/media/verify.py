"""Verification that an output has the video packets of its input, and audio of the right length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.timing import ticks_to_seconds
from v2m.media.ffmpeg import VIDEO_ONLY_FORMATS, open_media, picture_streams
from v2m.media.mux import MuxJob, needs_reencode

if TYPE_CHECKING:
    from av.stream import Stream
    from av.video.stream import VideoStream

SYNC_TOLERANCE_S = 0.1  # an audio packet of any codec here is shorter
# Parameter sets and delimiters, which move between stream and container header when the container changes.
HEVC_SETS = {32, 33, 34}  # types of units: video, sequence and picture parameter sets
AV1_DROPPED_UNITS = {2, 7, 8, 15}  # temporal delimiter, redundant frame header, tile list, padding
PARAMETER_SET_UNITS = {
    "h264": lambda unit: unit[0] & 31 in {7, 8, 9},
    "hevc": lambda unit: _hevc_type(unit) in {*HEVC_SETS, 35},
}


@dataclass(frozen=True)
class StreamFingerprint:
    """The streams of a file, in comparable form."""

    video_digests: Mapping[int, tuple[int, str]]  # number of packets and their digest, of each video stream by index
    audio_streams: tuple[int, ...]  # indices
    hvc1_streams: tuple[int, ...]  # indices of HEVC streams without parameter sets that only packets hold
    header: bytes  # of all HEVC streams
    first_pts: float  # of the first picture on the container's clock, seconds
    audio_range: tuple[float, float]  # of the first audio stream, seconds from `first_pts`


def fingerprint_streams(path: Path, nal_units: bool = False, header: bytes = b"") -> StreamFingerprint:
    """Digest all packets, of video from the first key frame on: those before it are not copied.

    With `nal_units`, H.264 and HEVC are digested without what containers add, as units of the `header` of the input;
    AV1 always is.
    Raises av.error.FFmpegError.
    """
    with open_media(path) as media:
        video_streams = [stream.index for stream in picture_streams(media)]
        digests = {index: hashlib.blake2b(digest_size=16) for index in video_streams}
        before_keyframe = set() if VIDEO_ONLY_FORMATS & {media.format.name} else set(video_streams)
        counts = dict.fromkeys(video_streams, 0)
        headers = {stream.index: _hevc_header(stream) for stream in media.streams.video}
        hvc1 = {stream.index for stream in media.streams.video if _may_be_hvc1(stream)}
        header = header or b"".join(headers.values())
        starts: dict[int, float] = {}
        ends: dict[int, float] = {}
        for packet in media.demux():
            index = packet.stream_index
            before_keyframe -= {index} if packet.is_keyframe else set()
            if packet.size == 0 or index in before_keyframe:
                continue
            if index in hvc1 and not _has_sets_of(headers[index], _split_units(bytes(packet), packet.stream)):
                hvc1.remove(index)
            if index in digests:
                counts[index] += 1
                split = nal_units or _codec_name(packet.stream) == "av1"
                for part in _units(bytes(packet), packet.stream, header) if split else (packet,):
                    digests[index].update(part)
            if packet.pts is not None and not packet.is_discard:
                start = ticks_to_seconds(packet.pts, packet.time_base)
                end = ticks_to_seconds(packet.pts + (packet.duration or 0), packet.time_base)
                starts[index] = min(start, starts.get(index, start))
                ends[index] = max(end, ends.get(index, end))
        audio_streams = tuple(stream.index for stream in media.streams.audio)
        first_pts = starts.get(video_streams[0], 0.0) if video_streams else 0.0
        audio_range = (0.0, 0.0)
        if audio_streams and audio_streams[0] in starts:
            audio_range = starts[audio_streams[0]] - first_pts, ends[audio_streams[0]] - first_pts
        video_digests = {index: (counts[index], digests[index].hexdigest()) for index in video_streams}
        return StreamFingerprint(video_digests, audio_streams, tuple(sorted(hvc1)), header, first_pts, audio_range)


def diff_streams(job: MuxJob, source: StreamFingerprint, output: StreamFingerprint) -> list[str]:
    """Return in what a written file differs from what `job` asked for; empty where all is well."""
    problems = []
    written = list(output.video_digests.values())
    wanted = [source.video_digests[stream.index] for stream in job.of_kind("video")]
    if needs_reencode(job.video):
        if [count for count, _ in written] != [count for count, _ in wanted]:
            problems.append("holds another number of pictures than the input")
    elif written != wanted:
        problems.append("holds other video packets than the input")
    if not output.audio_streams:
        problems.append("holds 0 audio tracks")
    start, end = output.audio_range
    if abs(start + job.leading_silence) > SYNC_TOLERANCE_S or abs(end - job.video.duration) > SYNC_TOLERANCE_S:
        problems.append(f"sounds from {start:.3f} to {end:.3f} s, the pictures end at {job.video.duration:.3f}")
    return problems


def _hevc_header(stream: VideoStream) -> bytes:
    context = stream.codec_context
    return (context.extradata or b"") if context is not None and context.name == "hevc" else b""


def _may_be_hvc1(stream: VideoStream) -> bool:
    """Return whether the four-character code may become hvc1: it is hev1, or none of a mov container."""
    is_mov = "mov" in stream.container.format.name.split(",")
    return bool(_hevc_header(stream)) and (not is_mov or stream.codec_context.codec_tag == "hev1")


def _has_sets_of(header: bytes, units: Iterable[bytes]) -> bool:
    """Return whether a header holds all parameter sets among NAL units."""
    return all(unit.rstrip(b"\0") in header for unit in units if unit and _hevc_type(unit) in HEVC_SETS)


def _hevc_type(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _codec_name(stream: Stream) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context else ""


def _units(data: bytes, stream: Stream, header: bytes) -> Iterator[bytes]:
    """Yield the units of an H.264, HEVC or AV1 packet without those of headers and delimiters."""
    name = _codec_name(stream)
    if name == "av1":
        yield from _av1_units(data)
        return
    if name not in PARAMETER_SET_UNITS:
        yield data
        return
    for unit in _split_units(data, stream):
        payload = unit.rstrip(b"\0")
        if payload and payload not in header and not PARAMETER_SET_UNITS[name](payload):
            yield payload


def _av1_units(data: bytes) -> Iterator[bytes]:
    """Yield the OBUs of an AV1 packet but those that containers leave out (AV1 specification, 5.3)."""
    start = 0
    while start < len(data):
        kind, position = data[start] >> 3 & 15, start + 1 + (data[start] >> 2 & 1)
        size = shift = 0
        while data[start] & 2 and position < len(data):
            size |= (data[position] & 127) << shift
            shift, position = shift + 7, position + 1
            if data[position - 1] < 128:
                break
        end = position + size if data[start] & 2 else len(data)
        if kind not in AV1_DROPPED_UNITS:
            yield data[start:end]
        start = end


def _split_units(data: bytes, stream: Stream) -> Iterator[bytes]:
    header = stream.codec_context.extradata or b""
    yield from _split_length_prefixed(data) if header[:1] == b"\x01" else data.split(b"\0\0\1")


def _split_length_prefixed(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 4 <= len(data):  # all common encoders write lengths of four bytes
        size = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 4 + size]
        position += 4 + size
