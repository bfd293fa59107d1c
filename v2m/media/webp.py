"""Animated WebP, which FFmpeg does not read: its header, and its frames by Pillow as a lossless video.

Source of the layout: WebP Container Specification (RFC 9649).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.errors import InvalidInputError
from v2m.core.timing import samples_to_seconds

if TYPE_CHECKING:
    from PIL.Image import Image

TICKS_PER_SECOND = 1000
MIN_FRAME_TICKS, DEFAULT_FRAME_TICKS = 11, 100  # browsers show a shorter frame for 0.1 s
ANIMATION_FLAG = 0x02
LOSSLESS = {"preset": "ultrafast", "qp": "0", "tune": "zerolatency"}
RECORD_FLAGS = {0x10: "transparency", 0x08: "EXIF", 0x04: "XMP", 0x20: "color profile"}  # that a video does not take


@dataclass(frozen=True)
class WebPAnimation:
    """The header of an animated WebP file."""

    width: int  # pixels
    height: int
    frame_ticks: tuple[int, ...]  # durations in ms
    records: tuple[str, ...]  # names of what is not in the pictures that `convert` writes

    @property
    def duration(self) -> float:
        """Seconds."""
        return samples_to_seconds(sum(self.frame_ticks), TICKS_PER_SECOND)

    @property
    def num_pixels(self) -> int:
        """Pixels of all frames together."""
        return self.width * self.height * len(self.frame_ticks)


def read_animation(path: Path, max_frames: int) -> WebPAnimation | None:
    """Return the header of an animated WebP; None for other files.

    Frames after `max_frames` + 1 are not counted.
    """
    with path.open("rb") as file:
        head = file.read(30)
        if len(head) < 30 or (head[:4], head[8:16]) != (b"RIFF", b"WEBPVP8X") or not head[20] & ANIMATION_FLAG:
            return None
        width, height = (1 + int.from_bytes(head[place : place + 3], "little") for place in (24, 27))
        position, ticks = 12, []
        while len(ticks) <= max_frames:
            file.seek(position)
            chunk = file.read(24)
            if len(chunk) < 8:
                break
            kind, size = struct.unpack("<4sI", chunk[:8])
            if kind == b"ANMF" and len(chunk) == 24:
                duration = int.from_bytes(chunk[20:23], "little")
                ticks.append(duration if duration >= MIN_FRAME_TICKS else DEFAULT_FRAME_TICKS)
            position += 8 + size + size % 2
    records = tuple(name for flag, name in RECORD_FLAGS.items() if head[20] & flag)
    return WebPAnimation(width, height, tuple(ticks), records)


def convert(path: str, out: str, limits: Mapping[str, float]) -> None:
    """Write the frames of an animated WebP to an MP4 `out`, lossless (H.264 in RGB), on black.

    Runs in the decoder process. Raises InvalidInputError for what is over `limits` or cannot be decoded, OSError.
    """
    import av
    from PIL import Image

    from v2m.media.probe import check_limits

    animation = read_animation(Path(path), int(limits["frames"]))
    assert animation is not None, "the caller has seen the animation"
    width, height = animation.width, animation.height
    check_limits(limits, width * height, len(animation.frame_ticks), animation.duration)
    Image.MAX_IMAGE_PIXELS = None  # `limits` hold
    with av.open(out, "w", format="mp4") as output:
        stream = output.add_stream("libx264rgb", TICKS_PER_SECOND, options=LOSSLESS)
        stream.width, stream.height, stream.pix_fmt, pts = width, height, "rgb24", 0
        for image, ticks in zip(_read_images(path, animation), animation.frame_ticks, strict=True):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = pts, Fraction(1, TICKS_PER_SECOND)
            for packet in stream.encode(frame):  # one for each frame
                packet.duration = ticks
                output.mux(packet)
            pts += ticks
    if len(animation.frame_ticks) == 1:
        raise InvalidInputError("image", "is a still image (webp); give a video")


def _read_images(path: str, animation: WebPAnimation) -> Iterator[Image]:
    """Yield the frames in RGB, on black. Raise InvalidInputError `undecodable`."""
    from PIL import Image

    try:
        with Image.open(path, formats=["WEBP"]) as image:
            for number in range(len(animation.frame_ticks)):
                image.seek(number)
                black = Image.new("RGB", image.size)
                black.paste(image.convert("RGB"), mask=image.getchannel("A") if image.mode == "RGBA" else None)
                yield black
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise InvalidInputError("undecodable", f"is a damaged animated WebP ({error})") from error
