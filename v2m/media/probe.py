"""What a video file holds, found by demuxing it and decoding its first frames. Runs in the child."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v2m.core import types
from v2m.core.errors import InvalidInputError
from v2m.core.timing import clock_seconds, mean_rate
from v2m.media.demux import demuxed, main_video, open_media, video_packets
from v2m.media.ffmpeg import RESTARTING
from v2m.media.pyav_reader import Orientation, Tally, decode

# Where decord's seeking was found exact; AVI's clock counts packets in coding order and says nothing of B-frames.
SEEKABLE, UNSEEKABLE_CODECS = {"mov", "matroska", "flv"}, {"av1", "gif", "apng", "vvc"}
SMALLEST_SEEKABLE = 33  # pixels a side
COUNTING = {"avi"}
MICROSECONDS = Fraction(1, av.time_base)
CUT_OFF = 0.5  # seconds that a file may end before its header says
LONE_FRAME = 0.04  # seconds that a frame stays where nothing says how long
SHORT = 0.1  # seconds below which there is hardly a video
TRIAL_FRAMES = 8


@dataclass
class Walk:
    """What one pass over the packets found. `ticks`: the shown frames' times on the stream's clock, in file order."""

    ticks: list[int] = field(default_factory=list)
    last_duration: int = 0
    discarded: int = 0  # by an edit list
    untimed: int = 0
    leading: int = 0  # shown before the key frame that they follow in the file, which marks an open GOP
    met: int = 0  # all video packets, also those before the first key frame
    from_start: bool = True
    end: float = 0.0  # of any stream, seconds on the container's clock
    torn: bool = False  # the last packet is not whole


def probe(path: str, limits: dict[str, float]) -> dict[str, Any]:
    """The facts of a `Video` as plain values, its timestamps an array. Raises RefusedError."""
    with open_media(path, int(limits["pixels"])) as container:
        stream = main_video(container)
        width, height = _declared_size(container, stream, path)
        _check_header(container, stream, width * height, limits)
        walk = _walk(container, stream, limits["frames"])
        if not walk.ticks:
            reason, what = ("undecodable", "no frame that can be shown") if walk.met else ("not_media", "no frames")
            raise InvalidInputError(reason, f"declares a video stream but holds {what}")
        facts = _timing(stream, walk)
        _check_length(facts["duration"], limits["duration"])
        _check_total(len(facts["timestamps"]) * width * height, limits["total_pixels"])
        facts |= {
            "container": container.format.name,
            "codec": stream.codec_context.codec.canonical_name,
            "streams": [asdict(each) for each in _streams(container)],
            "stream": stream.index,
            "warnings": _warnings(container, walk, facts),
            "ordered": bool(walk.untimed) or container.format.name in COUNTING,
        }
        seekable = _seekable(container, walk, facts) and _is_text(path)
    return facts | _geometry(_first_frame(path, facts["stream"], limits), (width, height), seekable)


def _declared_size(container: InputContainer, stream: VideoStream, path: str) -> tuple[int, int]:
    if container.format.name == "gif":  # a size that FFmpeg will not decode reads as 0 × 0
        with Path(path).open("rb") as file:
            return struct.unpack("<6xHH", file.read(10))
    return stream.codec_context.width, stream.codec_context.height


def _check_header(container: InputContainer, stream: VideoStream, pixels: int, limits: dict[str, float]) -> None:
    if pixels > limits["pixels"]:
        raise InvalidInputError(
            "too_large",
            f"has frames of {pixels / 1e6:.1f} million pixels, more than {limits['pixels'] / 1e6:.1f}; scale it down",
        )
    if stream.duration is not None:
        _check_length(clock_seconds(stream.duration, stream.time_base), limits["duration"])
    elif container.duration is not None:
        _check_length(clock_seconds(container.duration, MICROSECONDS), limits["duration"])
    _check_count(stream.frames, limits["frames"])
    _check_total(stream.frames * pixels, limits["total_pixels"])


def _check_length(seconds: float, most: float) -> None:
    if seconds > most:
        raise InvalidInputError(
            "too_long", f"lasts {seconds:.0f} s, more than {most:g} s; cut it into parts or raise limits.duration"
        )


def _check_count(frames: int, most: float) -> None:
    if frames > most:
        raise InvalidInputError(
            "too_many_frames", f"has {frames} frames or more, over {most:g}; cut it into parts or raise limits.frames"
        )


def _check_total(pixels: int, most: float) -> None:
    if pixels > most:
        raise InvalidInputError(
            "too_large", f"has {pixels:.1e} pixels in all, more than {most:.1e}; scale it down or cut it"
        )


def _walk(container: InputContainer, stream: VideoStream, most: float) -> Walk:
    walk = Walk()
    key = latest = None
    for packet in video_packets(_watched(container, stream, walk), stream):
        walk.torn = packet.is_corrupt
        walk.untimed += packet.pts is None
        ticks = packet.dts if packet.pts is None else packet.pts
        if packet.is_discard or ticks is None:
            walk.discarded += packet.is_discard
            continue
        walk.ticks.append(ticks)
        _check_count(len(walk.ticks), most)
        if packet.is_keyframe:
            key = ticks
        walk.leading += key is not None and ticks < key
        if latest is None or ticks > latest:
            latest, walk.last_duration = ticks, packet.duration or 0
    if walk.torn and len(walk.ticks) > 1:
        walk.ticks.pop()
    return walk


def _watched(container: InputContainer, stream: VideoStream, walk: Walk) -> Iterator[Packet]:
    """All packets of the file; notes what `video_packets` does not pass on."""
    for packet in demuxed(container):
        if packet.stream_index == stream.index and packet.size:
            walk.from_start &= walk.met > 0 or packet.is_keyframe
            walk.met += 1
        if packet.pts is not None:
            walk.end = max(walk.end, clock_seconds(packet.pts + (packet.duration or 0), packet.time_base))
        yield packet


def _timing(stream: VideoStream, walk: Walk) -> dict[str, Any]:
    ticks = np.unique(walk.ticks)
    timestamps = clock_seconds(ticks - ticks[0], stream.time_base)
    if walk.last_duration:
        last = clock_seconds(walk.last_duration, stream.time_base)
    else:
        last = float(np.median(np.diff(timestamps))) if len(ticks) > 1 else LONE_FRAME
    duration = float(timestamps[-1]) + last
    return {
        "timestamps": timestamps,
        "offset": clock_seconds(int(ticks[0]), stream.time_base),
        "duration": duration,
        "fps": round(mean_rate(len(ticks), duration), 6),
    }


def _streams(container: InputContainer) -> Iterator[types.Stream]:
    for stream in container.streams:
        sound = stream.codec_context if isinstance(stream, AudioStream) else None
        yield types.Stream(
            index=stream.index,
            kind=stream.type,
            codec=stream.codec_context.codec.canonical_name if stream.codec_context else "unknown",
            duration=None if stream.duration is None else clock_seconds(stream.duration, stream.time_base),
            channels=sound.layout.nb_channels if sound else None,
            sample_rate=sound.sample_rate if sound else None,
            language=stream.language,
        )


def _warnings(container: InputContainer, walk: Walk, facts: dict[str, Any]) -> list[str]:
    found = []
    declared = clock_seconds(container.duration or 0, MICROSECONDS)
    ends_early = container.format.name not in RESTARTING and declared > walk.end + CUT_OFF
    if walk.torn or ends_early:
        found.append(f"truncated: the file breaks off; {facts['duration']:.2f} s of video can be read")
    if not walk.from_start:
        found.append("no_keyframe_start: the first frames lack their key frame and are left out")
    if len(facts["timestamps"]) == 1:
        found.append("one_frame: the video is a single frame")
    elif facts["duration"] < SHORT:
        found.append(f"short: the video lasts only {facts['duration']:.3f} s")
    return found


def _seekable(container: InputContainer, walk: Walk, facts: dict[str, Any]) -> bool:
    """Whether decord's index of this file can be trusted: every packet a frame, every key frame a clean start."""
    return (
        bool(set(container.format.name.split(",")) & SEEKABLE)
        and facts["codec"] not in UNSEEKABLE_CODECS
        and len(container.streams.video) == 1
        and walk.from_start
        and not (walk.discarded or walk.untimed or walk.leading or walk.torn)
        and len(facts["timestamps"]) == walk.met
    )


def _is_text(path: str) -> bool:
    """Whether the name is valid UTF-8, as decord wants it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_frame(path: str, stream: int, limits: dict[str, float]) -> VideoFrame:
    """Raises RefusedError `undecodable` unless the first frames come at a rate that promises the rest."""
    tally, first = Tally(), None
    with open_media(path, int(limits["pixels"])) as container:
        video = container.streams[stream]
        assert isinstance(video, VideoStream)
        for frame in decode(container, video, tally):
            first = first or frame
            if tally.frames >= TRIAL_FRAMES and tally.decodable:
                break
    if first is None or not tally.decodable:
        raise InvalidInputError(
            "undecodable", f"{tally.frames} of {tally.packets} packets decode; encrypted or damaged?"
        )
    return first


def _geometry(frame: VideoFrame, declared: tuple[int, int], seekable: bool) -> dict[str, Any]:
    """Size and orientation as shown."""
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        orientation = Orientation(False, a < 0, d < 0)
    else:
        orientation = Orientation(True, c < 0, b < 0)
    coded = declared if all(declared) else (frame.width, frame.height)
    width, height = coded[::-1] if orientation.transpose else coded
    upright = (b, c) == (0, 0) and orientation == Orientation()
    return {
        "width": width,
        "height": height,
        "rotation": orientation.rotation,
        "orientation": astuple(orientation),
        "seekable": seekable and upright and min(coded) >= SMALLEST_SEEKABLE,
    }


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d, which show the pixel (x, y) at (a x + c y, b x + d y). An angle between quarter turns is rounded.

    Source: ISO/IEC 14496-12, 6.2.2: nine numbers in rows a b u, c d v, x y w, the first two columns 16.16 fixed point.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, c, d = struct.unpack("=ii4xii16x", bytes(data)[:36])
    return a, b, c, d
