"""Pairs of video and audio: in folders, beside each other, or in VidMuse's lists."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.types import Tags
from v2m.media.audio import AUDIO_SUFFIXES
from v2m.media.video import VIDEO_SUFFIXES

LIST_SUFFIXES = (".jsonl", ".json")
TAGS_SUFFIX = ".tags.json"
MAX_PROBLEMS = 3  # problems in one line


@dataclass(frozen=True)
class VideoSource:
    """One video: `name` is where it lies in its folder, `key` what its samples are named by.

    `audio` takes the place of its own; `tags` is a file of what is known of its music: `v2m.core.types.Tags` as JSON.
    """

    name: str
    key: str
    video: Path
    audio: Path | None = None
    tags: Path | None = None

    def file_state(self) -> list[Any]:
        """Size and time of each file, which change when a file does."""
        return [_file_state(path) for path in (self.video, self.audio, self.tags)]


def discover_videos(inputs: Sequence[Path]) -> list[VideoSource]:
    """The videos below each folder by name, those of each list in its order, and single files; each once.

    Raises:
        UsageError: An input does not exist, or a line of a list cannot be read; tells which.
        InvalidInputError: There is no video.
    """
    found: dict[Path, tuple[str, Path | None]] = {}
    for given in inputs:
        path = Path(os.path.abspath(given))  # noqa: PTH100 (symlinks stay: the name is shown to the user)
        if path.is_dir():
            pairs = [(each.relative_to(path).as_posix(), each, None) for each in _walk(path)]
        elif not path.is_file():
            raise UsageError(f"{str(given)!r}: no such file or folder")
        elif path.suffix.lower() in LIST_SUFFIXES:
            pairs = _read_list(path)
        else:
            pairs = [(path.name, path, None)]
        for name, video, sound in pairs:
            found.setdefault(video, (name, sound))
    if not found:
        raise InvalidInputError(
            "no_videos", f"{', '.join(map(str, inputs))}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    names = [name for name, _ in found.values()]
    return [
        VideoSource(
            name,
            _make_key(name, names[:number].count(name)),
            video,
            sound or _sibling(video, AUDIO_SUFFIXES),
            _tags_file(video),
        )
        for number, (video, (name, sound)) in enumerate(found.items())
    ]


def read_tags(path: Path) -> dict[str, Any]:
    """Fields of `v2m.core.types.Tags` that a file holds. Raises InvalidInputError where it holds none, or others."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        Tags(**held)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise InvalidInputError("tags", f"{path.name} holds no tags ({said})") from error
    return held


def _walk(folder: Path) -> list[Path]:
    every = (each for each in folder.rglob("*") if each.suffix.lower() in VIDEO_SUFFIXES)
    return sorted(
        each
        for each in every
        if each.is_file()
        and ".v2m" not in each.suffixes[-2:]
        and not any(part.startswith(".") for part in each.relative_to(folder).parts)
    )


def _read_list(path: Path) -> list[tuple[str, Path, Path | None]]:
    """Lines of JSON: `video_path` and `path` (the sound), from the list's folder, or else from the current one."""
    problems, pairs = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            video, sound = entry["video_path"], entry.get("path")
            if not isinstance(video, str) or not isinstance(sound, str | None):
                raise TypeError("paths must be text")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"line {number} ({type(error).__name__}: {error})")
            continue
        pairs.append((video, _resolve(path, video), None if sound is None else _resolve(path, sound)))
    if problems:
        more = f" and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise UsageError(
            f"{str(path)!r} must hold a JSON object with video_path on each line; "
            f"wrong are {', '.join(problems[:MAX_PROBLEMS])}{more}"
        )
    return pairs


def _resolve(listing: Path, name: str) -> Path:
    near = listing.parent / name
    return Path(os.path.abspath(near if near.exists() else name))  # noqa: PTH100


def _sibling(video: Path, suffixes: Sequence[str]) -> Path | None:
    return next((path for path in map(video.with_suffix, suffixes) if path.is_file()), None)


def _tags_file(video: Path) -> Path | None:
    path = video.with_name(video.stem + TAGS_SUFFIX)
    return path if path.is_file() else None


def _make_key(name: str, before: int) -> str:
    """Letters and numbers of the name, then what tells it from others like it; `before` counts those just like it."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40] or "video"
    said = name if not before else f"{before}:{name}"
    return f"{plain}-{hashlib.sha256(said.encode(errors='surrogateescape')).hexdigest()[:10]}"


def _file_state(path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), stat.st_size, stat.st_mtime_ns]
