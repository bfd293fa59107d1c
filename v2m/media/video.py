"""Opening a video: the gate that bad input does not pass, and frames by time.

Everything that demuxes or decodes happens in one child process for each opened video, under a time and a memory
limit: decoders hang, crash and eat memory on files made to do so, and sometimes on honest ones. F frames, H height,
W width as shown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from v2m.core.errors import InvalidInputError
from v2m.core.timing import every, shown_at
from v2m.core.types import Floats, FrameSource, Pixels, ProgressFn, Stream, Video, VisualFeatures
from v2m.media.decoder_process import Child, ChildError

Decoder = Literal["auto", "decord", "pyav"]
SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".ts", ".m2ts", ".mts",
    ".mpg", ".mpeg", ".vob", ".ogv", ".3gp", ".3g2", ".mxf", ".gif", ".apng",
})  # fmt: skip

_SLOWEST = 2e7  # pixels that even a slow machine decodes in a second
_READING = 5e7  # bytes that even a slow disk gives in a second
_HLS = (b"#EXT-X-STREAM-INF:", b"#EXT-X-TARGETDURATION:", b"#EXT-X-MEDIA-SEQUENCE:")


@dataclass(frozen=True)
class Limits:
    """What is refused, and how long a decoder may take.

    Args:
        duration: Longest video, in seconds.
        pixels: Largest frame.
        frames: Most frames.
        total_pixels: Most pixels of all frames together.
        memory: Bytes of address space for the decoding process.
        probing: Seconds allowed for opening a small file; a large one gets more.
        reading: Seconds allowed for reading a short video; a longer one gets twice its duration, or more.
    """

    duration: float = 3600.0
    pixels: int = 8192 * 8192
    frames: int = 500_000
    total_pixels: float = 1e12
    memory: int = 4_000_000_000
    probing: float = 20.0
    reading: float = 60.0


LIMITS = Limits()


def open(path: str | Path, limits: Limits = LIMITS, decoder: Decoder = "auto") -> Video:
    """Probes a video file, decodes its first frames and leaves the rest for later.

    `decoder` says who seeks the frames that `Video.frames` asks for: decord only where it was found exact ("auto"),
    also elsewhere ("decord"), or not at all ("pyav"). Raises RefusedError with one of the reasons missing,
    permission, not_regular, empty, playlist, not_media, image, container, no_video, codec, too_large, too_long,
    too_many_frames, undecodable.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (symlinks stay: the name is shown to the user)
    size = _gate(absolute)
    child = Child(limits.memory)
    request = {"task": "probe", "path": str(absolute), "limits": asdict(limits)}
    try:
        [(facts, payload)] = child.ask(request, limits.probing + size / _READING)
    except InvalidInputError as error:
        raise _refused(absolute, error.reason, str(error)) from None
    except ChildError as error:
        raise _refused(absolute, "undecodable", f"cannot be probed: the prober {error}") from None
    timestamps = np.frombuffer(payload, np.float64)
    source = Frames(absolute, facts, timestamps, limits=limits, decoder=decoder, child=child)
    names = ("container", "codec", "width", "height", "rotation", "fps", "duration", "offset")
    return Video(
        path=absolute,
        timestamps=timestamps,
        streams=tuple(Stream(**stream) for stream in facts["streams"]),
        warnings=source.warnings,
        source=source,
        **{name: facts[name] for name in names},
    )


def warnings(video: Video) -> tuple[str, ...]:
    """What is known to be wrong with the file by now: reading finds damage that opening does not."""
    return video.source.warnings if isinstance(video.source, Frames) else video.warnings


class Frames(FrameSource):
    """The frames of one opened file; `decoder` is who read last, `warnings` grow as damage is met."""

    def __init__(
        self, path: Path, facts: dict[str, Any], timestamps: Floats, *, limits: Limits, decoder: Decoder, child: Child
    ) -> None:
        self.warnings: tuple[str, ...] = tuple(facts["warnings"])
        self.decoder = "pyav"
        self.duration: float = facts["duration"]
        self.fps: float = facts["fps"]
        self._path, self._facts, self._timestamps, self._child = path, facts, timestamps, child
        self._pixels = limits.pixels
        pixels = len(timestamps) * facts["width"] * facts["height"]
        self._seconds = max(limits.reading, 2 * self.duration, pixels / _SLOWEST)
        self._seek = decoder == "decord" or (decoder == "auto" and facts["seekable"])
        self._picture: VisualFeatures | None = None

    def frames_at(self, times: Sequence[float], width: int | None = None) -> Pixels:
        """The frames shown at `times` in any order, (F, H, W, 3); a time before 0 or past the end gets the nearest.

        Raises RefusedError `undecodable`.
        """
        size = self._size(width)
        frames = np.empty((len(times), size[1], size[0], 3), np.uint8)
        wanted, places = np.unique(np.asarray(times, float), return_inverse=True)
        if self._seek and len(times):
            try:
                self._sought(wanted, size, places, frames)
                return frames
            except ChildError as error:
                self._seek = False
                self._warn(f"decoder: decord {error}; read in sequence instead")
        first = 0
        for _, images in self._read(size, wanted.tolist()):
            self._fill(frames, places, first, images)
            first += len(images)
        return frames

    def scan(self, width: int, fps: float) -> Iterator[tuple[Floats, Pixels]]:
        """All frames with their times in chunks of (F,) and (F, H, W, 3), read once from the start.

        Where the video has more than `fps` frames a second (by over a hundredth: clocks are rounded), the frames shown
        at k / fps instead. Raises RefusedError `undecodable`, at the end if hardly anything could be decoded.
        """
        times = None if 1.01 * fps >= self.fps else every(fps, self.duration).tolist()
        return self._read(self._size(width), times)

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:
        if self._picture is None:
            from v2m.analysis.visual_features import measure

            self._picture = measure(self, self.duration, progress)
        return self._picture

    def _size(self, width: int | None) -> tuple[int, int]:
        shown, height = self._facts["width"], self._facts["height"]
        return (shown, height) if width is None else (width, max(1, round(height * width / shown)))

    def _read(self, size: tuple[int, int], times: list[float] | None) -> Iterator[tuple[Floats, Pixels]]:
        self.decoder = "pyav"
        request = {
            "task": "read",
            "path": str(self._path),
            "stream": self._facts["stream"],
            "max_pixels": self._pixels,
            "start": self._facts["offset"],
            "size": size,
            "orientation": self._facts["orientation"],
            "times": times,
            "order": self._timestamps.tolist() if self._facts["ordered"] else None,
        }
        try:
            for header, payload in self._child.ask(request, self._seconds):
                if "tally" in header:
                    self._note(header["tally"])
                else:
                    yield np.array(header["times"]), _pixels(header, payload)
        except InvalidInputError as error:
            raise _refused(self._path, error.reason, str(error)) from None
        except ChildError as error:
            raise _refused(self._path, "undecodable", f"cannot be decoded: the decoder {error}") from None

    def _sought(self, wanted: Floats, size: tuple[int, int], places: np.ndarray, frames: Pixels) -> None:
        indices, again = np.unique(shown_at(self._timestamps, wanted), return_inverse=True)
        request = {
            "task": "seek",
            "path": str(self._path),
            "codec": self._facts["codec"],
            "indices": indices.tolist(),
            "size": size,
            "count": len(self._timestamps),
        }
        first = 0
        for header, payload in self._child.ask(request, self._seconds):
            images = _pixels(header, payload)
            self._fill(frames, again[places], first, images)
            first += len(images)
        self.decoder = "decord"

    @staticmethod
    def _fill(frames: Pixels, places: np.ndarray, first: int, images: Pixels) -> None:
        here = (places >= first) & (places < first + len(images))
        frames[here] = images[places[here] - first]

    def _note(self, tally: dict[str, int]) -> None:
        if tally["errors"] or tally["corrupt"]:
            lost = "of {packets} packets {errors} cannot be decoded, and {corrupt} frames are broken".format(**tally)
            self._warn(f"damaged: {lost}")

    def _warn(self, warning: str) -> None:
        word = warning.partition(":")[0] + ":"
        self.warnings = (*(known for known in self.warnings if not known.startswith(word)), warning)


def _pixels(header: dict[str, Any], payload: bytearray) -> Pixels:
    return np.frombuffer(payload, np.uint8).reshape(header["shape"])


def _refused(path: Path, reason: str, what: str) -> InvalidInputError:
    return InvalidInputError(reason, f"{str(path)!r} {what}")


def _gate(path: Path) -> int:
    """The size of a readable regular file that is no playlist. Nothing else is opened: a FIFO would block for ever."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        head, size = _head(path) if regular else (b"", 0)
    except PermissionError:
        raise _refused(path, "permission", "may not be read; change its permissions") from None
    except (OSError, ValueError):  # also a name that is too long or holds a zero byte
        raise _refused(path, "missing", "does not exist; check the name") from None
    if not regular:
        raise _refused(path, "not_regular", "is not a regular file; give a video file")
    if not head:
        raise _refused(path, "empty", "is empty (0 bytes); fetch or copy it again")
    kind = _playlist(head)
    if kind:
        raise _refused(path, "playlist", f"is a playlist ({kind}) that names other files; give the video itself")
    return size


def _head(path: Path) -> tuple[bytes, int]:
    """The first bytes of the file, and how many there are in all."""
    with path.open("rb") as file:
        return file.read(4096), os.fstat(file.fileno()).st_size


def _playlist(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"#EXTM3U") and any(tag in text for tag in _HLS):
        return "HLS"
    if text.startswith(b"ffconcat version"):
        return "ffconcat"
    if text.startswith(b"<") and b"<MPD" in text:
        return "DASH"
    if text.startswith(b"v=0") and b"\nm=" in text:
        return "SDP"
    return None
