"""Proof that a written file holds the same pictures as its input, and sound of the right length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.timing import clock_seconds
from v2m.media.ffmpeg import open_media
from v2m.media.mux import VIDEO_ONLY_FORMATS, MuxJob, VideoTracks, needs_reencode

if TYPE_CHECKING:
    from av.stream import Stream

SYNC_TOLERANCE_S = 0.1  # seconds; an audio packet of any codec here is shorter
# Parameter sets and delimiters, which move between the stream and the container's header when the container changes.
PARAMETER_SET_UNITS = {
    "h264": lambda unit: unit[0] & 31 in {7, 8, 9},
    "hevc": lambda unit: (unit[0] >> 1) & 63 in {32, 33, 34, 35},
}


@dataclass(frozen=True)
class StreamFingerprint:
    """What a file holds.

    videos: number of packets and their digest, per stream of moving pictures. sounds: index of every audio stream.
    zero: the first picture on the container's clock, seconds. heard: where the first audio stream begins and ends,
    counted from there.
    """

    video_digests: tuple[tuple[int, str], ...]
    audio_streams: tuple[int, ...]
    num_subtitles: int
    first_pts: float
    audio_range: tuple[float, float]


def fingerprint_streams(path: Path, nal_units: bool = False) -> StreamFingerprint:
    """Reads every packet once, pictures from their first key frame on, as nothing can show or copies what lies before.

    With `units`, H.264 and HEVC are compared without what their containers add.

    Raises:
        av.error.FFmpegError: The file cannot be read.
    """
    with open_media(path) as media:
        moving = VideoTracks.from_container(media).video
        digests = {index: hashlib.blake2b(digest_size=16) for index in moving}
        waiting = set() if VIDEO_ONLY_FORMATS & {media.format.name} else set(moving)
        counts = dict.fromkeys(moving, 0)
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for packet in media.demux():
            index = packet.stream_index
            waiting -= {index} if packet.is_keyframe else set()
            if packet.size == 0 or index in waiting:
                continue
            if index in digests:
                counts[index] += 1
                for part in _nal_units(bytes(packet), packet.stream) if nal_units else (packet,):
                    digests[index].update(part)
            if packet.pts is not None and not packet.is_discard:
                start = clock_seconds(packet.pts, packet.time_base)
                end = clock_seconds(packet.pts + (packet.duration or 0), packet.time_base)
                first[index], last[index] = min(start, first.get(index, start)), max(end, last.get(index, end))
        sounds = tuple(stream.index for stream in media.streams.audio)
        zero = first.get(moving[0], 0.0) if moving else 0.0
        heard = (first[sounds[0]] - zero, last[sounds[0]] - zero) if sounds and sounds[0] in first else (0.0, 0.0)
        videos = tuple((counts[index], digests[index].hexdigest()) for index in moving)
        return StreamFingerprint(videos, sounds, len(media.streams.subtitles), zero, heard)


def diff_streams(job: MuxJob, source: StreamFingerprint, output: StreamFingerprint) -> list[str]:
    """In what a written file is not what `job` asked for; nothing where all is well."""
    found = []
    if needs_reencode(job.video):
        if [count for count, _ in output.video_digests] != [count for count, _ in source.video_digests]:
            found.append("holds another number of pictures than the input")
    elif output.video_digests != source.video_digests:
        found.append("holds other video packets than the input")
    if len(output.audio_streams) != 1 + len(job.kept_tracks):
        found.append(f"holds {len(output.audio_streams)} audio tracks instead of {1 + len(job.kept_tracks)}")
    if job.copies_subtitles and output.num_subtitles != source.num_subtitles:
        found.append(f"holds {output.num_subtitles} subtitle tracks instead of {source.num_subtitles}")
    first, last = output.audio_range
    if abs(first + job.leading_silence) > SYNC_TOLERANCE_S or abs(last - job.video.duration) > SYNC_TOLERANCE_S:
        found.append(f"sounds from {first:.3f} to {last:.3f} s, the pictures end at {job.video.duration:.3f}")
    return found


def _nal_units(data: bytes, stream: Stream) -> Iterator[bytes]:
    """The units of an H.264 or HEVC packet, whichever way it frames them, without the movable ones."""
    name = stream.codec_context.name if stream.codec_context else ""
    if name not in PARAMETER_SET_UNITS:
        yield data
        return
    extra = stream.codec_context.extradata or b""
    for unit in _split_length_prefixed(data) if extra[:1] == b"\x01" else data.split(b"\0\0\1"):
        bare = unit.rstrip(b"\0")
        if bare and not PARAMETER_SET_UNITS[name](bare):
            yield bare


def _split_length_prefixed(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(data):  # every usual encoder writes lengths of four bytes
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size
