"""Verification that an output has the video packets of its input, and audio of the right length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.timing import ticks_to_seconds
from v2m.media.ffmpeg import open_media
from v2m.media.mux import VIDEO_ONLY_FORMATS, MuxJob, VideoTracks, needs_reencode

if TYPE_CHECKING:
    from av.stream import Stream

SYNC_TOLERANCE_S = 0.1  # an audio packet of any codec here is shorter
# Parameter sets and delimiters, which move between stream and container header when the container changes.
PARAMETER_SET_UNITS = {
    "h264": lambda unit: unit[0] & 31 in {7, 8, 9},
    "hevc": lambda unit: (unit[0] >> 1) & 63 in {32, 33, 34, 35},
}


@dataclass(frozen=True)
class StreamFingerprint:
    """The streams of a file, in comparable form."""

    video_digests: tuple[tuple[int, str], ...]  # number of packets and their digest, of each video stream
    audio_streams: tuple[int, ...]  # indices
    num_subtitles: int
    first_pts: float  # of the first picture on the container's clock, seconds
    audio_range: tuple[float, float]  # of the first audio stream, seconds from `first_pts`


def fingerprint_streams(path: Path, nal_units: bool = False) -> StreamFingerprint:
    """Digest all packets, of video from the first key frame on: those before it are not copied.

    With `nal_units`, H.264 and HEVC are digested without what containers add. Raises av.error.FFmpegError.
    """
    with open_media(path) as media:
        video_streams = VideoTracks.from_container(media).video
        digests = {index: hashlib.blake2b(digest_size=16) for index in video_streams}
        before_keyframe = set() if VIDEO_ONLY_FORMATS & {media.format.name} else set(video_streams)
        counts = dict.fromkeys(video_streams, 0)
        starts: dict[int, float] = {}
        ends: dict[int, float] = {}
        for packet in media.demux():
            index = packet.stream_index
            before_keyframe -= {index} if packet.is_keyframe else set()
            if packet.size == 0 or index in before_keyframe:
                continue
            if index in digests:
                counts[index] += 1
                for part in _nal_units(bytes(packet), packet.stream) if nal_units else (packet,):
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
        video_digests = tuple((counts[index], digests[index].hexdigest()) for index in video_streams)
        return StreamFingerprint(video_digests, audio_streams, len(media.streams.subtitles), first_pts, audio_range)


def diff_streams(job: MuxJob, source: StreamFingerprint, output: StreamFingerprint) -> list[str]:
    """Return in what a written file differs from what `job` asked for; empty where all is well."""
    problems = []
    if needs_reencode(job.video):
        if [count for count, _ in output.video_digests] != [count for count, _ in source.video_digests]:
            problems.append("holds another number of pictures than the input")
    elif output.video_digests != source.video_digests:
        problems.append("holds other video packets than the input")
    if len(output.audio_streams) != 1 + len(job.kept_tracks):
        problems.append(f"holds {len(output.audio_streams)} audio tracks instead of {1 + len(job.kept_tracks)}")
    if job.copies_subtitles and output.num_subtitles != source.num_subtitles:
        problems.append(f"holds {output.num_subtitles} subtitle tracks instead of {source.num_subtitles}")
    start, end = output.audio_range
    if abs(start + job.leading_silence) > SYNC_TOLERANCE_S or abs(end - job.video.duration) > SYNC_TOLERANCE_S:
        problems.append(f"sounds from {start:.3f} to {end:.3f} s, the pictures end at {job.video.duration:.3f}")
    return problems


def _nal_units(data: bytes, stream: Stream) -> Iterator[bytes]:
    """Yield the NAL units of an H.264 or HEVC packet without parameter sets and delimiters."""
    name = stream.codec_context.name if stream.codec_context else ""
    if name not in PARAMETER_SET_UNITS:
        yield data
        return
    header = stream.codec_context.extradata or b""
    for unit in _split_length_prefixed(data) if header[:1] == b"\x01" else data.split(b"\0\0\1"):
        payload = unit.rstrip(b"\0")
        if payload and not PARAMETER_SET_UNITS[name](payload):
            yield payload


def _split_length_prefixed(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 4 <= len(data):  # all common encoders write lengths of four bytes
        size = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 4 + size]
        position += 4 + size
