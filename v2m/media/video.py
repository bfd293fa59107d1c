"""Opening a video: the validation of input files, and frames by time.

All demuxing and decoding happens in one process per opened video, under a time and a memory limit: decoders hang, crash
and exhaust memory on malicious files, and sometimes on honest ones. F frames, H height, W width as shown.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from v2m.core.errors import InvalidInputError
from v2m.core.timing import Seconds, frame_index_at, time_grid
from v2m.core.types import ConvertFn, Floats, FrameSource, Pixels, ProgressFn, Stream, Video, VisualFeatures
from v2m.media.decoder_process import MEMORY_LIMIT, DecoderProcess, DecoderProcessError
from v2m.media.webp import WebPAnimation, read_animation

Decoder = Literal["auto", "decord", "pyav"]
Facts = dict[str, Any]  # plain values, from `v2m.media.probe`
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".ts", ".m2ts", ".mts",
    ".mpg", ".mpeg", ".vob", ".ogv", ".3gp", ".3g2", ".mxf", ".gif", ".apng",
})  # fmt: skip

_MIN_DECODE_RATE = 2e7  # pixels per second that even a slow machine decodes
_MIN_CONVERSION_RATE = 2e6  # pixels per second that even a slow machine decodes and encodes again
_MIN_READ_RATE = 5e7  # bytes per second that even a slow disk reads
_HLS_TAGS = (b"#EXT-X-STREAM-INF:", b"#EXT-X-TARGETDURATION:", b"#EXT-X-MEDIA-SEQUENCE:")


@dataclass(frozen=True)
class Limits:
    """Limits of accepted videos and of the decoder.

    Args:
        duration: Longest video, in seconds.
        pixels: Largest frame.
        frames: Most frames.
        total_pixels: Most pixels of all frames together.
        memory: Bytes of address space for the decoding process.
        probe_timeout: Seconds allowed for opening a small file; a large one gets more.
        read_timeout: Seconds allowed for reading a short video; a longer one gets twice its duration, or more.
    """

    duration: Seconds = 3600.0
    pixels: int = 8192 * 8192
    frames: int = 500_000
    total_pixels: float = 1e12
    memory: int = MEMORY_LIMIT
    probe_timeout: float = 20.0
    read_timeout: float = 60.0


DEFAULT_LIMITS = Limits()


def open(path: str | Path, limits: Limits = DEFAULT_LIMITS, decoder: Decoder = "auto") -> Video:
    """Probe a video file and decode its first frames; the rest is decoded on demand.

    `decoder` chooses the backend of `Video.frames`: decord only where its seeking is exact ("auto"), everywhere
    ("decord"), or nowhere ("pyav"). Raises InvalidInputError with one of the reasons missing, permission, not_regular,
    empty, playlist, not_media, image, container, no_video, codec, too_large, too_long, too_many_frames, undecodable.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (symlinks stay: the name is shown to the user)
    size = _check_file(absolute)
    process = DecoderProcess(limits.memory)
    animation = read_animation(absolute, limits.frames)
    converted = None if animation is None else _convert(absolute, animation, process, limits)
    request = {"task": "probe", "path": str(converted or absolute), "limits": asdict(limits)}
    [(info, payload)] = _request(process, absolute, request, limits.probe_timeout + size / _MIN_READ_RATE)
    if animation is not None:
        info |= {"container": "webp", "codec": "webp", "seekable": False}
        lost = [f"records_lost: {', '.join(animation.records)} of the file is not read"] * bool(animation.records)
        info["warnings"] += lost
    timestamps = np.frombuffer(payload, np.float64)
    media_path = converted or absolute
    source = FileFrameSource(absolute, media_path, info, timestamps, limits=limits, decoder=decoder, process=process)
    names = ("container", "codec", "width", "height", "rotation", "fps", "duration", "offset")
    facts: Facts = {name: info[name] for name in names} | {"converted_path": converted}
    streams = tuple(Stream(**stream) for stream in info["streams"])
    return Video(absolute, timestamps=timestamps, streams=streams, warnings=source.warnings, source=source, **facts)


def _convert(path: Path, animation: WebPAnimation, process: DecoderProcess, limits: Limits) -> Path:
    """Return a file with the frames of `animation`, in a folder that is removed with `process`."""
    folder = tempfile.mkdtemp(prefix="v2m-")
    weakref.finalize(process, shutil.rmtree, folder, ignore_errors=True)
    out = Path(folder, "frames.mp4")
    request = {"task": "convert", "path": str(path), "out": str(out), "limits": asdict(limits)}
    _request(process, path, request, max(limits.read_timeout, animation.num_pixels / _MIN_CONVERSION_RATE))
    return out


def _request(process: DecoderProcess, path: Path, message: Facts, timeout: float) -> list[tuple[Facts, bytearray]]:
    try:
        return list(process.request(message, timeout))
    except InvalidInputError as error:
        raise _input_error(path, error.reason, str(error)) from None
    except DecoderProcessError as error:
        raise _input_error(path, "undecodable", f"cannot be probed: the prober {error}") from None


def current_warnings(video: Video) -> tuple[str, ...]:
    """Return the warnings about a file up to now: reading finds damage that opening does not."""
    return video.source.warnings if isinstance(video.source, FileFrameSource) else video.warnings


class FileFrameSource(FrameSource):
    """The frames of an opened file; `decoder` is the last backend used, `warnings` grow with reading."""

    def __init__(
        self,
        path: Path,
        media_path: Path,
        info: Facts,
        timestamps: Floats,
        *,
        limits: Limits,
        decoder: Decoder,
        process: DecoderProcess,
    ) -> None:
        self.warnings: tuple[str, ...] = tuple(info["warnings"])
        self.decoder = "pyav"
        self.duration: float = info["duration"]
        self.fps: float = info["fps"]
        self._path, self._media_path, self._process = path, media_path, process
        self._info, self._timestamps = info, timestamps
        self._max_pixels = limits.pixels
        pixels = len(timestamps) * info["width"] * info["height"]
        self._timeout = max(limits.read_timeout, 2 * self.duration, pixels / _MIN_DECODE_RATE)
        self._use_decord = decoder == "decord" or (decoder == "auto" and info["seekable"])
        self._visual_features: VisualFeatures | None = None

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: ConvertFn | None = None) -> Pixels:
        """Return the frames shown at `times`, in any order, (F, H, W, 3); times outside get the nearest.

        Raises InvalidInputError `undecodable`.
        """
        size = self._output_size(width)
        frames = _FrameBuffer(len(times), size, convert)
        unique_times, places = np.unique(np.asarray(times, float), return_inverse=True)
        if self._use_decord and len(times):
            try:
                self._seek_frames(unique_times, size, places, frames)
                return frames.images
            except DecoderProcessError as error:
                self._use_decord = False
                self._add_warning(f"decoder: decord {error}; read in sequence instead")
        first = 0
        for _, images in self._read_sequence(size, unique_times.tolist()):
            frames.fill(places, first, images)
            first += len(images)
        return frames.images

    def scan(self, width: int, fps: float) -> Iterator[tuple[Floats, Pixels]]:
        """Yield times (F,) and frames (F, H, W, 3) of the whole video in chunks, at most `fps` a second.

        A faster one (by over a hundredth: clocks are rounded) gives those shown at k / fps. Raises InvalidInputError
        `undecodable`.
        """
        times = None if 1.01 * fps >= self.fps else time_grid(fps, self.duration).tolist()
        return self._read_sequence(self._output_size(width), times)

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:
        if self._visual_features is None:
            from v2m.analysis.visual_features import extract_features

            self._visual_features = extract_features(self, self.duration, progress)
        return self._visual_features

    def _output_size(self, width: int | None) -> tuple[int, int]:
        width_shown, height = self._info["width"], self._info["height"]
        if width is None:
            return width_shown, height
        return width, max(1, round(height * width / width_shown))

    def _read_sequence(self, size: tuple[int, int], times: list[float] | None) -> Iterator[tuple[Floats, Pixels]]:
        self.decoder = "pyav"
        order = self._timestamps.tolist() if self._info["ordered"] else None
        request = {"task": "read", "path": str(self._media_path), "max_pixels": self._max_pixels, "size": size}
        request |= {"times": times, "order": order, "start": self._info["offset"]}
        request |= {name: self._info[name] for name in ("stream", "orientation", "separable")}
        try:
            for header, payload in self._process.request(request, self._timeout):
                if "stats" in header:
                    self._record_stats(header["stats"])
                else:
                    yield np.array(header["times"]), _to_pixels(header, payload)
        except InvalidInputError as error:
            raise _input_error(self._path, error.reason, str(error)) from None
        except DecoderProcessError as error:
            raise _input_error(self._path, "undecodable", f"cannot be decoded: the decoder {error}") from None

    def _seek_frames(self, times: Floats, size: tuple[int, int], places: np.ndarray, frames: _FrameBuffer) -> None:
        indices, inverse = np.unique(frame_index_at(self._timestamps, times), return_inverse=True)
        request = {"task": "seek", "path": str(self._media_path), "codec": self._info["codec"]}
        request |= {"indices": indices.tolist(), "size": size, "count": len(self._timestamps)}
        first = 0
        for header, payload in self._process.request(request, self._timeout):
            images = _to_pixels(header, payload)
            frames.fill(inverse[places], first, images)
            first += len(images)
        self.decoder = "decord"

    def _record_stats(self, stats: dict[str, int]) -> None:
        if stats["is_transparent"]:
            self._add_warning("records_lost: transparency of the file is not read")
        if stats["num_errors"] or stats["num_corrupt"]:
            failed = f"of {stats['num_packets']} packets {stats['num_errors']} cannot be decoded"
            self._add_warning(f"damaged: {failed}, and {stats['num_corrupt']} frames are broken")

    def _add_warning(self, warning: str) -> None:
        kind = warning.partition(":")[0] + ":"
        self.warnings = (*(other for other in self.warnings if not other.startswith(kind)), warning)


class _FrameBuffer:
    """Frames in the order that was asked for, converted as they come."""

    def __init__(self, count: int, size: tuple[int, int], convert: ConvertFn | None) -> None:
        self.images: Pixels = np.empty((0 if convert else count, size[1], size[0], 3), np.uint8)
        self._count, self._convert = count, convert

    def fill(self, places: np.ndarray, first: int, images: Pixels) -> None:
        """Store decoded images, numbered from `first`, at each place that has one's number."""
        images = images if self._convert is None else self._convert(images)
        if len(self.images) != self._count:
            self.images = np.empty((self._count, *images.shape[1:]), np.uint8)
        selected = (places >= first) & (places < first + len(images))
        self.images[selected] = images[places[selected] - first]


def _to_pixels(header: dict[str, Any], payload: bytearray) -> Pixels:
    return np.frombuffer(payload, np.uint8).reshape(header["shape"])


def _input_error(path: Path, reason: str, problem: str) -> InvalidInputError:
    return InvalidInputError(reason, f"{str(path)!r} {problem}")


def _check_file(path: Path) -> int:
    """Return the size of a regular file that is no playlist; all others stay closed: a FIFO would block."""
    try:
        regular, head, size = stat.S_ISREG(path.stat().st_mode), b"", 0
        if regular:
            with path.open("rb") as file:
                head, size = file.read(4096), os.fstat(file.fileno()).st_size
    except PermissionError:
        raise _input_error(path, "permission", "may not be read; change its permissions") from None
    except (OSError, ValueError):  # also of a name that is too long or holds a zero byte
        raise _input_error(path, "missing", "does not exist; check the name") from None
    if not regular:
        raise _input_error(path, "not_regular", "is not a regular file; give a video file")
    if not head:
        raise _input_error(path, "empty", "is empty (0 bytes); fetch or copy it again")
    if playlist := _detect_playlist(head):
        problem = f"is a playlist ({playlist}) that names other files; give the video itself"
        raise _input_error(path, "playlist", problem)
    return size


def _detect_playlist(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kinds = {
        "HLS": text.startswith(b"#EXTM3U") and any(tag in text for tag in _HLS_TAGS),
        "ffconcat": text.startswith(b"ffconcat version"),
        "DASH": text.startswith(b"<") and b"<MPD" in text,
        "SDP": text.startswith(b"v=0") and b"\nm=" in text,
    }
    return next((kind for kind, matches in kinds.items() if matches), None)
