"""Videos among the files of a folder: by their names, and images by whether they are animated."""

from __future__ import annotations

from pathlib import Path, PurePath

from v2m.media.video import VIDEO_SUFFIXES
from v2m.media.webp import ANIMATION_FLAG

IMAGE_SUFFIXES = frozenset({".avif", ".png", ".webp"})  # of animations, and more often of still images
FOLDER_SUFFIXES = f"{', '.join(sorted(VIDEO_SUFFIXES))}, or animated {', '.join(sorted(IMAGE_SUFFIXES))}"
HEAD_BYTES = 1 << 16


def is_folder_video(path: Path) -> bool:
    """Return whether a command takes the file where its folder is named: no hidden one, no output of v2m."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return not _is_left_out(path) and is_animated_image(path)
    return is_video_name(path) and not Path(path).is_dir()


def is_video_name(path: PurePath) -> bool:
    """Return the same by the name alone, which says nothing about images."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not _is_left_out(path)


def _is_left_out(path: PurePath) -> bool:
    return path.name.startswith(".") or ".v2m" in path.suffixes[-2:]


def is_animated_image(path: Path) -> bool:
    """Return whether the header is that of an animated WebP, AVIF or PNG; False where it cannot be read."""
    if not path.is_file():  # a pipe would block
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    if head.startswith(b"RIFF"):
        return head[8:16] == b"WEBPVP8X" and bool(head[20] & ANIMATION_FLAG)
    if head[4:8] == b"ftyp":
        brands = head[8 : int.from_bytes(head[:4], "big")]
        return b"avis" in {brands[place : place + 4] for place in range(0, len(brands), 4)}
    return head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0]
