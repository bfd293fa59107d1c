"""Proof that a written file holds the same pictures as its input, and sound of the right length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.timing import clock_seconds
from v2m.media.ffmpeg import open_media
from v2m.media.mux import PICTURES, Job, Tracks, encoded_anew

if TYPE_CHECKING:
    from av.stream import Stream

TOLERANCE = 0.1  # seconds; an audio packet of any codec here is shorter
# Parameter sets and delimiters, which move between the stream and the container's header when the container changes.
MOVABLE = {"h264": lambda unit: unit[0] & 31 in {7, 8, 9}, "hevc": lambda unit: (unit[0] >> 1) & 63 in {32, 33, 34, 35}}


@dataclass(frozen=True)
class Fingerprint:
    """What a file holds.

    videos: number of packets and their digest, per stream of moving pictures. sounds: index of every audio stream.
    zero: the first picture on the container's clock, seconds. heard: where the first audio stream begins and ends,
    counted from there.
    """

    videos: tuple[tuple[int, str], ...]
    sounds: tuple[int, ...]
    subtitles: int
    zero: float
    heard: tuple[float, float]


def fingerprint(path: Path, units: bool = False) -> Fingerprint:
    """Reads every packet once, pictures from their first key frame on, as nothing can show or copies what lies before.

    With `units`, H.264 and HEVC are compared without what their containers add.

    Raises:
        av.error.FFmpegError: The file cannot be read.
    """
    with open_media(path) as media:
        moving = Tracks.of(media).moving
        digests = {index: hashlib.blake2b(digest_size=16) for index in moving}
        waiting = set() if PICTURES & {media.format.name} else set(moving)
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
                for part in _parts(bytes(packet), packet.stream) if units else (packet,):
                    digests[index].update(part)
            if packet.pts is not None and not packet.is_discard:
                start = clock_seconds(packet.pts, packet.time_base)
                end = clock_seconds(packet.pts + (packet.duration or 0), packet.time_base)
                first[index], last[index] = min(start, first.get(index, start)), max(end, last.get(index, end))
        sounds = tuple(stream.index for stream in media.streams.audio)
        zero = first.get(moving[0], 0.0) if moving else 0.0
        heard = (first[sounds[0]] - zero, last[sounds[0]] - zero) if sounds and sounds[0] in first else (0.0, 0.0)
        videos = tuple((counts[index], digests[index].hexdigest()) for index in moving)
        return Fingerprint(videos, sounds, len(media.streams.subtitles), zero, heard)


def differences(job: Job, given: Fingerprint, made: Fingerprint) -> list[str]:
    """In what a written file is not what `job` asked for; nothing where all is well."""
    found = []
    if encoded_anew(job.video):
        if [count for count, _ in made.videos] != [count for count, _ in given.videos]:
            found.append("holds another number of pictures than the input")
    elif made.videos != given.videos:
        found.append("holds other video packets than the input")
    if len(made.sounds) != 1 + len(job.kept):
        found.append(f"holds {len(made.sounds)} audio tracks instead of {1 + len(job.kept)}")
    if job.keeps_subtitles and made.subtitles != given.subtitles:
        found.append(f"holds {made.subtitles} subtitle tracks instead of {given.subtitles}")
    first, last = made.heard
    if abs(first + job.lead) > TOLERANCE or abs(last - job.video.duration) > TOLERANCE:
        found.append(f"sounds from {first:.3f} to {last:.3f} s, the pictures end at {job.video.duration:.3f}")
    return found


def _parts(data: bytes, stream: Stream) -> Iterator[bytes]:
    """The units of an H.264 or HEVC packet, whichever way it frames them, without the movable ones."""
    name = stream.codec_context.name if stream.codec_context else ""
    if name not in MOVABLE:
        yield data
        return
    extra = stream.codec_context.extradata or b""
    for unit in _framed(data) if extra[:1] == b"\x01" else data.split(b"\0\0\1"):
        bare = unit.rstrip(b"\0")
        if bare and not MOVABLE[name](bare):
            yield bare


def _framed(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(data):  # every usual encoder writes lengths of four bytes
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size
