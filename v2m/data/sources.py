"""Pairs of video and audio: in folders, beside each other, or in lists; and music without video."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2m.core.arguments import OneLineParser
from v2m.core.errors import InvalidInputError, UsageError, error_text
from v2m.core.types import Tags
from v2m.media.audio import AUDIO_SUFFIXES
from v2m.media.folder import FOLDER_SUFFIXES, is_folder_video

LIST_SUFFIXES = (".jsonl", ".json")
TAGS_SUFFIX = ".tags.json"
SCORE_SUFFIXES = (".mid", ".midi")
COMPANION_SUFFIXES = (*AUDIO_SUFFIXES, TAGS_SUFFIX, *SCORE_SUFFIXES)
MAX_PROBLEMS = 3  # that one message names


@dataclass(frozen=True)
class VideoSource:
    """One video, and the files that belong to it."""

    name: str  # its path in the folder that was given
    key: str  # prefix of its samples' names
    video: Path
    audio: Path | None = None  # replaces its own audio
    tags: Path | None = None  # JSON of known fields of `v2m.core.types.Tags`
    score: Path | None = None  # a MIDI file of its music

    def file_state(self) -> list[Any]:
        """Return size and modification time of each file, by which a change is noticed."""
        files = (self.video, self.audio, self.tags, *([] if self.score is None else [self.score]))
        return [_file_state(path) for path in files]


@dataclass(frozen=True)
class MusicSource:
    """One piece of music without video: a MIDI file, a sound file, or both."""

    name: str  # as of `VideoSource`; so are the others
    key: str
    audio: Path | None
    tags: Path | None
    score: Path | None

    def file_state(self) -> list[Any]:
        """Return size and modification time of each file, by which a change is noticed."""
        return [_file_state(path) for path in (self.audio, self.tags, self.score)]


Source = VideoSource | MusicSource


def discover_videos(inputs: Sequence[Path]) -> list[VideoSource]:
    """Return the videos below each folder by name, of each list in its order, and single files; each once.

    Raises UsageError where an input does not exist or a line of a list cannot be read, InvalidInputError without
    videos.
    """
    names: dict[Path, str] = {}
    audio_files: dict[Path, Path | None] = {}
    for input_path in inputs:
        path = Path(os.path.abspath(input_path))  # noqa: PTH100 (symlinks stay: the name is shown to the user)
        if path.is_dir():
            entries = [(video.relative_to(path).as_posix(), video, None) for video in _walk(path)]
        elif not path.is_file():
            raise UsageError(f"{str(input_path)!r}: no such file or folder")
        elif path.suffix.lower() in LIST_SUFFIXES:
            entries = _read_list(path)
        else:
            entries = [(path.name, path, None)]
        for name, video, audio in entries:
            names.setdefault(video, name)
            audio_files.setdefault(video, audio)
    if not names:
        raise InvalidInputError("no_videos", f"{', '.join(map(str, inputs))}: no videos ({FOLDER_SUFFIXES})")
    num_seen: Counter[str] = Counter()
    companions: dict[Path, dict[tuple[str, str], Path]] = {}
    sources = []
    for video, name in names.items():
        if video.parent not in companions:
            companions[video.parent] = _find_companions(video.parent)
        own = {suffix: companions[video.parent].get((video.stem, suffix)) for suffix in COMPANION_SUFFIXES}
        score = next((own[suffix] for suffix in SCORE_SUFFIXES if own[suffix]), None)
        audio = audio_files[video] or next((own[suffix] for suffix in AUDIO_SUFFIXES if own[suffix]), None)
        key = _make_key(name, num_seen[name])
        sources.append(VideoSource(name, key, video, audio, own[TAGS_SUFFIX], score))
        num_seen[name] += 1
    return sources


def discover_music(inputs: Sequence[Path]) -> list[MusicSource]:
    """Return the music below each folder, and single files; MIDI and sound of one name are one piece.

    Raises UsageError where an input does not exist, InvalidInputError without music.
    """
    names: dict[Path, str] = {}
    pieces: dict[Path, dict[str, Path]] = defaultdict(dict)  # by path without suffix, the files by suffix
    for input_path in inputs:
        path = Path(os.path.abspath(input_path))  # noqa: PTH100
        if not path.exists():
            raise UsageError(f"{str(input_path)!r}: no such file or folder")
        folder = path if path.is_dir() else path.parent
        for file in _walk(folder, _is_music) if path.is_dir() else [path]:
            piece = file.with_name(file.name[: -len(file.suffix)] if _is_music(file) else file.name)
            names.setdefault(piece, file.relative_to(folder).as_posix())
            pieces[piece].setdefault(file.suffix.lower(), file)
    suffixes = ", ".join((*SCORE_SUFFIXES, *AUDIO_SUFFIXES))
    if not names:
        raise InvalidInputError("no_music", f"{', '.join(map(str, inputs))}: no music ({suffixes})")
    num_seen: Counter[str] = Counter()
    sources = []
    for piece, name in names.items():
        files, tags = pieces[piece], piece.with_name(piece.name + TAGS_SUFFIX)
        score, audio = (
            next((files[suffix] for suffix in choice if suffix in files), None)
            for choice in (SCORE_SUFFIXES, AUDIO_SUFFIXES)
        )
        if score is None and audio is None:
            raise UsageError(f"{name!r} is no music that is read: give {suffixes}")
        key = _make_key(name, num_seen[name])
        sources.append(MusicSource(name, key, audio, tags if tags.is_file() else None, score))
        num_seen[name] += 1
    return sources


def _is_music(path: Path) -> bool:
    return path.suffix.lower() in {*SCORE_SUFFIXES, *AUDIO_SUFFIXES} and ".v2m" not in path.suffixes[-2:]


def _find_companions(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the files that belong to videos, by the stem of the video and their suffix in lower case."""
    companions = {}
    for path in (
        sorted(folder.iterdir()) if folder.is_dir() else ()
    ):  # a suffix in lower case, which is written last, goes before others
        for suffix in COMPANION_SUFFIXES:
            if path.name.lower().endswith(suffix) and path.is_file():
                companions[path.name[: -len(suffix)], suffix] = path
    return companions


def read_tags(path: Path) -> dict[str, Any]:
    """Read the fields of `Tags` in a JSON file. Raise InvalidInputError where it holds none or others."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        parser = OneLineParser()
        parser.add_class_arguments(Tags)
        values = vars(parser.parse_object(fields))
        Tags(**values)
    except (OSError, ValueError) as error:
        raise InvalidInputError("tags", f"{path.name} holds no tags ({error_text(error)})") from error
    return {name: value if value == values[name] else values[name] for name, value in fields.items()}


def _walk(folder: Path, is_wanted: Callable[[Path], bool] = is_folder_video) -> list[Path]:
    """Return the videos, or other wanted files, without hidden ones and those that v2m wrote."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_wanted(path)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _read_list(path: Path) -> list[tuple[str, Path, Path | None]]:
    """Read JSON lines of `video_path` and `path` (the audio), relative to the list or the current folder."""
    problems, entries = [], []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            video, audio = entry["video_path"], entry.get("path")
            if not isinstance(video, str) or not isinstance(audio, str | None):
                raise TypeError("paths must be text")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"line {number} ({type(error).__name__}: {error})")
            continue
        entries.append((video, _resolve(path, video), None if audio is None else _resolve(path, audio)))
    if problems:
        more = f" and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        wrong = f"wrong are {', '.join(problems[:MAX_PROBLEMS])}{more}"
        raise UsageError(f"{str(path)!r} must hold a JSON object with video_path on each line; {wrong}")
    return entries


def _resolve(listing: Path, name: str) -> Path:
    sibling = listing.parent / name
    return Path(os.path.abspath(sibling if sibling.exists() else name))  # noqa: PTH100


def _make_key(name: str, before: int) -> str:
    """Make a key of a name's ASCII letters and digits and a hash; `before` counts earlier equal names."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40] or "video"
    unique = name if not before else f"{before}:{name}"
    return f"{plain}-{hashlib.sha256(unique.encode(errors='surrogateescape')).hexdigest()[:10]}"


def _file_state(path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), stat.st_size, stat.st_mtime_ns]
