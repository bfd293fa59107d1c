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
from v2m.media.demux import demux_packets, open_media, select_video_stream, video_packets
from v2m.media.ffmpeg import DISCONTINUOUS_FORMATS
from v2m.media.pyav_reader import DecodeStats, Orientation, decode_frames

# Where decord's seeking was found exact; AVI's clock counts packets in coding order and says nothing of B-frames.
SEEKABLE_FORMATS, UNSEEKABLE_CODECS = {"mov", "matroska", "flv"}, {"av1", "gif", "apng", "vvc"}
MIN_SEEKABLE_SIDE = 33  # pixels a side
FORMATS_WITHOUT_PTS = {"avi"}
AV_TIME_BASE = Fraction(1, av.time_base)
TRUNCATION_TOLERANCE_S = 0.5  # seconds that a file may end before its header says
SINGLE_FRAME_S = 0.04  # seconds that a frame stays where nothing says how long
SHORT_VIDEO_S = 0.1  # seconds below which there is hardly a video
TRIAL_FRAMES = 8


@dataclass
class PacketScan:
    """What one pass over the packets found. `ticks`: the shown frames' times on the stream's clock, in file order."""

    ticks: list[int] = field(default_factory=list)
    last_duration: int = 0
    num_discarded: int = 0  # by an edit list
    num_without_pts: int = 0
    num_leading: int = 0  # shown before the key frame that they follow in the file, which marks an open GOP
    num_packets: int = 0  # all video packets, also those before the first key frame
    starts_with_keyframe: bool = True
    end_time: float = 0.0  # of any stream, seconds on the container's clock
    truncated: bool = False  # the last packet is not whole


def probe(path: str, limits: dict[str, float]) -> dict[str, Any]:
    """The facts of a `Video` as plain values, its timestamps an array. Raises InvalidInputError."""
    with open_media(path, int(limits["pixels"])) as container:
        stream = select_video_stream(container)
        width, height = _declared_size(container, stream, path)
        _check_header(container, stream, width * height, limits)
        walk = _scan_packets(container, stream, limits["frames"])
        if not walk.ticks:
            reason, what = (
                ("undecodable", "no frame that can be shown") if walk.num_packets else ("not_media", "no frames")
            )
            raise InvalidInputError(reason, f"declares a video stream but holds {what}")
        facts = _frame_times(stream, walk)
        _check_duration(facts["duration"], limits["duration"])
        _check_total_pixels(len(facts["timestamps"]) * width * height, limits["total_pixels"])
        facts |= {
            "container": container.format.name,
            "codec": stream.codec_context.codec.canonical_name,
            "streams": [asdict(each) for each in _list_streams(container)],
            "stream": stream.index,
            "warnings": _find_warnings(container, walk, facts),
            "ordered": bool(walk.num_without_pts) or container.format.name in FORMATS_WITHOUT_PTS,
        }
        seekable = _is_seekable(container, walk, facts) and _is_utf8(path)
    return facts | _geometry(_decode_first_frame(path, facts["stream"], limits), (width, height), seekable)


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
        _check_duration(clock_seconds(stream.duration, stream.time_base), limits["duration"])
    elif container.duration is not None:
        _check_duration(clock_seconds(container.duration, AV_TIME_BASE), limits["duration"])
    _check_num_frames(stream.frames, limits["frames"])
    _check_total_pixels(stream.frames * pixels, limits["total_pixels"])


def _check_duration(duration: float, max_duration: float) -> None:
    if duration > max_duration:
        raise InvalidInputError(
            "too_long",
            f"lasts {duration:.0f} s, more than {max_duration:g} s; cut it into parts or raise limits.duration",
        )


def _check_num_frames(num_frames: int, max_frames: float) -> None:
    if num_frames > max_frames:
        raise InvalidInputError(
            "too_many_frames",
            f"has {num_frames} frames or more, over {max_frames:g}; cut it into parts or raise limits.frames",
        )


def _check_total_pixels(pixels: int, max_pixels: float) -> None:
    if pixels > max_pixels:
        raise InvalidInputError(
            "too_large", f"has {pixels:.1e} pixels in all, more than {max_pixels:.1e}; scale it down or cut it"
        )


def _scan_packets(container: InputContainer, stream: VideoStream, max_frames: float) -> PacketScan:
    walk = PacketScan()
    key = latest = None
    for packet in video_packets(_count_packets(container, stream, walk), stream):
        walk.truncated = packet.is_corrupt
        walk.num_without_pts += packet.pts is None
        ticks = packet.dts if packet.pts is None else packet.pts
        if packet.is_discard or ticks is None:
            walk.num_discarded += packet.is_discard
            continue
        walk.ticks.append(ticks)
        _check_num_frames(len(walk.ticks), max_frames)
        if packet.is_keyframe:
            key = ticks
        walk.num_leading += key is not None and ticks < key
        if latest is None or ticks > latest:
            latest, walk.last_duration = ticks, packet.duration or 0
    if walk.truncated and len(walk.ticks) > 1:
        walk.ticks.pop()
    return walk


def _count_packets(container: InputContainer, stream: VideoStream, walk: PacketScan) -> Iterator[Packet]:
    """All packets of the file; notes what `video_packets` does not pass on."""
    for packet in demux_packets(container):
        if packet.stream_index == stream.index and packet.size:
            walk.starts_with_keyframe &= walk.num_packets > 0 or packet.is_keyframe
            walk.num_packets += 1
        if packet.pts is not None:
            walk.end_time = max(walk.end_time, clock_seconds(packet.pts + (packet.duration or 0), packet.time_base))
        yield packet


def _frame_times(stream: VideoStream, walk: PacketScan) -> dict[str, Any]:
    ticks = np.unique(walk.ticks)
    timestamps = clock_seconds(ticks - ticks[0], stream.time_base)
    if walk.last_duration:
        last = clock_seconds(walk.last_duration, stream.time_base)
    else:
        last = float(np.median(np.diff(timestamps))) if len(ticks) > 1 else SINGLE_FRAME_S
    duration = float(timestamps[-1]) + last
    return {
        "timestamps": timestamps,
        "offset": clock_seconds(int(ticks[0]), stream.time_base),
        "duration": duration,
        "fps": round(mean_rate(len(ticks), duration), 6),
    }


def _list_streams(container: InputContainer) -> Iterator[types.Stream]:
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


def _find_warnings(container: InputContainer, walk: PacketScan, facts: dict[str, Any]) -> list[str]:
    found = []
    declared = clock_seconds(container.duration or 0, AV_TIME_BASE)
    ends_early = (
        container.format.name not in DISCONTINUOUS_FORMATS and declared > walk.end_time + TRUNCATION_TOLERANCE_S
    )
    if walk.truncated or ends_early:
        found.append(f"truncated: the file breaks off; {facts['duration']:.2f} s of video can be read")
    if not walk.starts_with_keyframe:
        found.append("no_keyframe_start: the first frames lack their key frame and are left out")
    if len(facts["timestamps"]) == 1:
        found.append("one_frame: the video is a single frame")
    elif facts["duration"] < SHORT_VIDEO_S:
        found.append(f"short: the video lasts only {facts['duration']:.3f} s")
    return found


def _is_seekable(container: InputContainer, walk: PacketScan, facts: dict[str, Any]) -> bool:
    """Whether decord's index of this file can be trusted: every packet a frame, every key frame a clean start."""
    return (
        bool(set(container.format.name.split(",")) & SEEKABLE_FORMATS)
        and facts["codec"] not in UNSEEKABLE_CODECS
        and len(container.streams.video) == 1
        and walk.starts_with_keyframe
        and not (walk.num_discarded or walk.num_without_pts or walk.num_leading or walk.truncated)
        and len(facts["timestamps"]) == walk.num_packets
    )


def _is_utf8(path: str) -> bool:
    """Whether the name is valid UTF-8, as decord wants it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decode_first_frame(path: str, stream: int, limits: dict[str, float]) -> VideoFrame:
    """Raises InvalidInputError `undecodable` unless the first frames come at a rate that promises the rest."""
    tally, first = DecodeStats(), None
    with open_media(path, int(limits["pixels"])) as container:
        video = container.streams[stream]
        assert isinstance(video, VideoStream)
        for frame in decode_frames(container, video, tally):
            first = first or frame
            if tally.num_frames >= TRIAL_FRAMES and tally.is_decodable:
                break
    if first is None or not tally.is_decodable:
        raise InvalidInputError(
            "undecodable", f"{tally.num_frames} of {tally.num_packets} packets decode; encrypted or damaged?"
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
        "seekable": seekable and upright and min(coded) >= MIN_SEEKABLE_SIDE,
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
