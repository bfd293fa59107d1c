"""Probing: the facts of a video file, from its packets and first frames. Runs in the decoder process."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v2m.core import types
from v2m.core.errors import InvalidInputError
from v2m.core.timing import is_slideshow, mean_rate, ticks_to_seconds
from v2m.media import decoding
from v2m.media.decoding import Orientation, demux_packets, open_video, video_packets
from v2m.media.ffmpeg import has_discontinuous_clock
from v2m.media.span_decoding import is_balanced

# Where decord's seeking is exact; AVI's clock counts packets in coding order and has no order of display.
SEEKABLE_FORMATS, UNSEEKABLE_CODECS = {"mov", "matroska", "flv"}, {"av1", "gif", "apng", "vvc"}
MIN_SEEKABLE_SIDE = 33  # pixels
FORMATS_WITHOUT_PTS = {"avi"}
ANIMATION_FORMATS = {"gif", "apng"}  # still where they hold one frame
AV_TIME_BASE = Fraction(1, av.time_base)
TRUNCATION_TOLERANCE_S = 0.5  # by which a file may end before the duration in its header
SINGLE_FRAME_S = 0.04  # duration of a single frame where nothing gives it
SHORT_VIDEO_S = 0.1  # below which a video gets a warning
TRIAL_FRAMES = 8


@dataclass
class PacketScan:
    """The result of one pass over the packets; `ticks` are the times of the shown frames, in file order."""

    ticks: list[int] = field(default_factory=list)
    last_duration: int = 0
    num_discarded: int = 0  # by an edit list
    num_without_pts: int = 0
    num_leading: int = 0  # shown before the key frame that they follow in the file: an open GOP
    num_packets: int = 0  # all video packets, also those before the first key frame
    key_packets: list[int] = field(default_factory=list)  # numbers of the key frames among them
    starts_with_keyframe: bool = True
    end_time: float = 0.0  # of any stream, seconds on the container's clock
    audio_end: float = 0.0  # of the longest audio stream, likewise
    truncated: bool = False  # the last packet is not whole


def probe(path: str, limits: dict[str, float]) -> dict[str, Any]:
    """Return the facts of a `Video` as plain values, its timestamps as an array. Raises InvalidInputError."""
    with open_video(path, int(limits["pixels"])) as container:
        stream = decoding.select_video_stream(container)
        width, height = _declared_size(container, stream, path)
        _check_header(container, stream, width * height, limits)
        scan = _scan_packets(container, stream, limits["frames"])
        if not scan.ticks:
            no_frames, unshown = ("not_media", "no frames"), ("undecodable", "no frame that can be shown")
            reason, what = unshown if scan.num_packets else no_frames
            raise InvalidInputError(reason, f"declares a video stream but holds {what}")
        if len(scan.ticks) == 1 and container.format.name in ANIMATION_FORMATS:
            raise InvalidInputError("image", f"is a still image ({container.format.name}); give a video")
        facts = _frame_times(stream, scan)
        _check_duration(facts["duration"], limits["duration"])
        _check_total_pixels(len(facts["timestamps"]) * width * height, limits["total_pixels"])
        facts |= {
            "container": container.format.name,
            "codec": stream.codec_context.codec.canonical_name,
            "streams": [asdict(info) for info in list_streams(container)],
            "stream": stream.index,
            "warnings": _find_warnings(container, scan, facts),
            "ordered": bool(scan.num_without_pts) or container.format.name in FORMATS_WITHOUT_PTS,
        }
        is_clean = _is_clean(container, scan, facts)
        facts["separable"] = is_clean and facts["codec"] == "h264" and is_balanced(scan.key_packets, scan.num_packets)
        seekable = is_clean and _is_utf8(path)
    return facts | _geometry(_decode_first_frame(path, facts["stream"], limits), (width, height), seekable)


def _declared_size(container: InputContainer, stream: VideoStream, path: str) -> tuple[int, int]:
    if container.format.name == "gif":  # a size that FFmpeg will not decode reads as 0 × 0
        with Path(path).open("rb") as file:
            return struct.unpack("<6xHH", file.read(10))
    return stream.codec_context.width, stream.codec_context.height


def _check_header(container: InputContainer, stream: VideoStream, pixels: int, limits: Mapping[str, float]) -> None:
    duration = 0.0
    if stream.duration is not None:
        duration = ticks_to_seconds(stream.duration, stream.time_base)
    elif container.duration is not None:
        duration = ticks_to_seconds(container.duration, AV_TIME_BASE)
    check_limits(limits, pixels, stream.frames, duration)


def check_limits(limits: Mapping[str, float], pixels: int, num_frames: int, duration: float) -> None:
    """Raise InvalidInputError for a video over `limits`; `pixels` are those of a frame."""
    if pixels > limits["pixels"]:
        problem = f"has frames of {pixels / 1e6:.1f} million pixels, more than {limits['pixels'] / 1e6:.1f}"
        raise InvalidInputError("too_large", f"{problem}; scale it down")
    _check_duration(duration, limits["duration"])
    _check_num_frames(num_frames, limits["frames"])
    _check_total_pixels(num_frames * pixels, limits["total_pixels"])


def _check_duration(duration: float, max_duration: float) -> None:
    if duration > max_duration:
        problem = f"lasts {duration:.0f} s, more than {max_duration:g} s"
        raise InvalidInputError("too_long", f"{problem}; cut it into parts or raise `limits.duration`")


def _check_num_frames(num_frames: int, max_frames: float) -> None:
    if num_frames > max_frames:
        problem = f"has {num_frames} frames or more, over {max_frames:g}"
        raise InvalidInputError("too_many_frames", f"{problem}; cut it into parts or raise `limits.frames`")


def _check_total_pixels(pixels: int, max_pixels: float) -> None:
    if pixels > max_pixels:
        problem = f"has {pixels:.1e} pixels in all, more than {max_pixels:.1e}"
        raise InvalidInputError("too_large", f"{problem}; scale it down or cut it")


def _scan_packets(container: InputContainer, stream: VideoStream, max_frames: float) -> PacketScan:
    scan = PacketScan()
    key_ticks = latest = None
    for packet in video_packets(_count_packets(container, stream, scan), stream):
        scan.truncated = packet.is_corrupt
        scan.num_without_pts += packet.pts is None
        ticks = packet.dts if packet.pts is None else packet.pts
        if packet.is_discard or ticks is None:
            scan.num_discarded += packet.is_discard
            continue
        scan.ticks.append(ticks)
        _check_num_frames(len(scan.ticks), max_frames)
        if packet.is_keyframe:
            key_ticks = ticks
        scan.num_leading += key_ticks is not None and ticks < key_ticks
        if latest is None or ticks > latest:
            latest, scan.last_duration = ticks, packet.duration or 0
    if scan.truncated and len(scan.ticks) > 1:
        scan.ticks.pop()
    return scan


def _count_packets(container: InputContainer, stream: VideoStream, scan: PacketScan) -> Iterator[Packet]:
    """Yield all packets of the file, and note in `scan` what `video_packets` leaves out."""
    for packet in demux_packets(container):
        if packet.stream_index == stream.index and packet.size:
            scan.starts_with_keyframe &= scan.num_packets > 0 or packet.is_keyframe
            if packet.is_keyframe:
                scan.key_packets.append(scan.num_packets)
            scan.num_packets += 1
        if packet.pts is not None:
            end = ticks_to_seconds(packet.pts + (packet.duration or 0), packet.time_base)
            scan.end_time = max(scan.end_time, end)
            if isinstance(packet.stream, AudioStream):
                scan.audio_end = max(scan.audio_end, end)
        yield packet


def _frame_times(stream: VideoStream, scan: PacketScan) -> dict[str, Any]:
    ticks = np.unique(scan.ticks)
    timestamps = ticks_to_seconds(ticks - ticks[0], stream.time_base)
    if scan.last_duration:
        last = ticks_to_seconds(scan.last_duration, stream.time_base)
    else:
        last = float(np.median(np.diff(timestamps))) if len(ticks) > 1 else SINGLE_FRAME_S
    duration, offset = float(timestamps[-1]) + last, ticks_to_seconds(int(ticks[0]), stream.time_base)
    if is_slideshow(timestamps):  # its sound goes on with the last frame
        duration = max(duration, scan.audio_end - offset)
    fps = round(mean_rate(len(ticks), duration), 6)
    return {"timestamps": timestamps, "offset": offset, "duration": duration, "fps": fps}


def list_streams(container: InputContainer) -> Iterator[types.Stream]:
    for stream in container.streams:
        audio = stream.codec_context if isinstance(stream, AudioStream) else None
        yield types.Stream(
            index=stream.index,
            kind=stream.type,
            codec=stream.codec_context.codec.canonical_name if stream.codec_context else types.UNKNOWN_CODEC,
            duration=None if stream.duration is None else ticks_to_seconds(stream.duration, stream.time_base),
            channels=audio.layout.nb_channels if audio else None,
            sample_rate=audio.sample_rate if audio else None,
            language=stream.language,
            is_default=bool(stream.disposition & Disposition.default),
        )


def _find_warnings(container: InputContainer, scan: PacketScan, facts: dict[str, Any]) -> list[str]:
    warnings = []
    declared = ticks_to_seconds(container.duration or 0, AV_TIME_BASE)
    ends_early = declared > scan.end_time + TRUNCATION_TOLERANCE_S
    if scan.truncated or (ends_early and not has_discontinuous_clock(container.format.name)):
        warnings.append(f"truncated: the file breaks off; {facts['duration']:.2f} s of video can be read")
    if not scan.starts_with_keyframe:
        warnings.append("no_keyframe_start: the first frames lack their key frame and are left out")
    if len(facts["timestamps"]) == 1:
        warnings.append(f"one_frame: the video is a single frame, shown for {facts['duration']:.2f} s")
    elif facts["duration"] < SHORT_VIDEO_S:
        warnings.append(f"short: the video lasts only {facts['duration']:.3f} s")
    return warnings


def _is_clean(container: InputContainer, scan: PacketScan, facts: dict[str, Any]) -> bool:
    """Return whether every packet is a frame and every key frame a clean start, as decord assumes."""
    return (
        bool(set(container.format.name.split(",")) & SEEKABLE_FORMATS)
        and facts["codec"] not in UNSEEKABLE_CODECS
        and len(container.streams.video) == 1
        and scan.starts_with_keyframe
        and not (scan.num_discarded or scan.num_without_pts or scan.num_leading or scan.truncated)
        and len(facts["timestamps"]) == scan.num_packets
    )


def _is_utf8(path: str) -> bool:
    """Return whether the name is valid UTF-8, as decord needs it: it holds no surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def _decode_first_frame(path: str, stream: int, limits: dict[str, float]) -> VideoFrame:
    """Decode the first frame. Raise InvalidInputError `undecodable` where too few first packets decode."""
    stats, first = decoding.DecodeStats(), None
    with open_video(path, int(limits["pixels"])) as container:
        video = container.streams[stream]
        assert isinstance(video, VideoStream)
        for frame in decoding.decode_frames(container, video, stats):
            first = first or frame
            if stats.num_frames >= TRIAL_FRAMES and stats.is_decodable:
                break
    if first is None or not stats.is_decodable:
        problem = f"{stats.num_frames} of {stats.num_packets} packets decode"
        raise InvalidInputError("undecodable", f"{problem}; encrypted or damaged?")
    return first


def _geometry(frame: VideoFrame, declared: tuple[int, int], seekable: bool) -> dict[str, Any]:
    """Return size and orientation as shown, and whether decord may seek."""
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) >= abs(b) + abs(c):  # angles between quarter turns are rounded
        orientation = Orientation(False, a < 0, d < 0)
    else:
        orientation = Orientation(True, c < 0, b < 0)
    coded = declared if all(declared) else (frame.width, frame.height)
    width, height = coded[::-1] if orientation.transpose else coded
    upright = (b, c) == (0, 0) and orientation == Orientation()
    seekable = seekable and upright and min(coded) >= MIN_SEEKABLE_SIDE
    shown = {"width": width, "height": height, "rotation": orientation.rotation}
    return shown | {"orientation": astuple(orientation), "seekable": seekable}


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return a, b, c, d of a matrix that shows pixel (x, y) at (a x + c y, b x + d y).

    Source: ISO/IEC 14496-12, 6.2.2: nine numbers in rows a b u, c d v, x y w, the first two columns 16.16 fixed point.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, c, d = struct.unpack("=ii4xii16x", bytes(data)[:36])
    return a, b, c, d
