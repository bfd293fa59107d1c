"""Pairs of video and audio: in folders, beside each other, or in lists; and music without video."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from v2m.core import remote
from v2m.core.arguments import OneLineParser
from v2m.core.errors import InvalidInputError, UsageError, error_text
from v2m.core.remote import RemoteFile, printable_address
from v2m.core.types import Tags
from v2m.media.audio import AUDIO_SUFFIXES
from v2m.media.folder import FOLDER_SUFFIXES, is_folder_video, is_video_name

LIST_SUFFIXES = (".jsonl", ".json")
TAGS_SUFFIX = ".tags.json"
SCORE_SUFFIXES = (".mid", ".midi")
COMPANION_SUFFIXES = (*AUDIO_SUFFIXES, TAGS_SUFFIX, *SCORE_SUFFIXES)
MAX_PROBLEMS = 3  # that one message names
PathT = TypeVar("PathT", bound=PurePath)


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


@dataclass(frozen=True)
class RemoteSource:
    """One video, or piece of music, at addresses: `files` by the fields of `VideoSource` or `MusicSource`."""

    name: str  # as of `VideoSource`; so is the other
    key: str
    files: Mapping[str, RemoteFile]

    def file_state(self) -> list[Any]:
        """Return address, size and version of each file, by which a change is noticed."""
        return [
            None if file is None else [printable_address(file.address), file.size, file.version]
            for file in (self.files.get(field) for field in ("video", "audio", "tags", "score"))
        ]


Source = VideoSource | MusicSource | RemoteSource


@contextmanager
def local_source(source: Source) -> Iterator[VideoSource | MusicSource]:
    """Provide a source with files of this machine. Raise InvalidInputError for an unreadable address."""
    if not isinstance(source, RemoteSource):
        yield source
        return
    with ExitStack() as stack:
        paths = {field: stack.enter_context(remote.local_copy(file)) for field, file in source.files.items()}
        companions = {field: paths.get(field) for field in ("audio", "tags", "score")}
        if "video" in paths:
            yield VideoSource(source.name, source.key, paths["video"], **companions)
        else:
            yield MusicSource(source.name, source.key, **companions)


def discover_remote(addresses: Sequence[str], *, unpaired: bool = False) -> list[RemoteSource]:
    """Return the sources in folders and files at addresses, as `discover_videos` or `discover_music` do.

    Animated images, which their names do not tell from still ones, and lists are left out. What belongs to a single
    file is found by its suffix in lower case. Raises UsageError for an address that cannot be read, InvalidInputError
    without videos or music.
    """
    names: dict[str, str] = {}
    found: dict[str, dict[str, RemoteFile]] = defaultdict(dict)  # by the address of the video, or of the piece
    for address in addresses:
        files = _list_remote(address, (TAGS_SUFFIX,) if unpaired else COMPANION_SUFFIXES)
        for name, fields in (_group_music(files) if unpaired else _group_videos(files)).items():
            main = next(iter(fields.values()))
            place = files[main].address.removesuffix(main.suffix if unpaired else "")
            names.setdefault(place, name)
            for field, path in fields.items():
                found[place].setdefault(field, files[path])
    if not found:
        shown = ", ".join(map(printable_address, addresses))
        raise InvalidInputError("no_music" if unpaired else "no_videos", f"{shown}: none is there")
    num_seen: Counter[str] = Counter()
    sources = []
    for place, name in names.items():
        sources.append(RemoteSource(name, _make_key(name, num_seen[name]), found[place]))
        num_seen[name] += 1
    return sources


def _list_remote(address: str, suffixes: Iterable[str]) -> dict[PurePosixPath, RemoteFile]:
    """Return the files at an address by their names from there.

    A single file comes with those beside it that have its stem and one of `suffixes`.
    """
    listed = remote.list_files(address)
    if [file.address for file in listed] != [address]:
        prefix = f"{address.rstrip('/')}/"
        return {PurePosixPath(file.address.removeprefix(prefix)): file for file in listed}
    [file] = listed
    path = PurePosixPath(file.name)
    files = {path: file}
    if not address.endswith(file.name):  # a query follows, which would be another one for another file
        return files
    for suffix in suffixes:  # a list of the folder could be that of a whole bucket or web site
        name = path.stem + suffix
        with suppress(InvalidInputError):  # some services refuse a file that is not there
            companion = remote.find_file(address.removesuffix(file.name) + name)
            if companion is not None:
                files.setdefault(PurePosixPath(name), companion)
    return files


def _group_videos(paths: Iterable[PurePosixPath]) -> dict[str, dict[str, PurePosixPath]]:
    """Return the files of each video by the video's name, as `discover_videos` pairs them."""
    by_folder: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for path in sorted(paths):
        by_folder[path.parent].append(path)
    own = {folder: _index_companions(inside) for folder, inside in by_folder.items()}
    groups: dict[str, dict[str, PurePosixPath]] = {}
    for video in sorted(path for path in paths if is_video_name(path) and not _is_hidden(path)):
        companions = own[video.parent]
        audio, score = (
            next((companions[video.stem, suffix] for suffix in suffixes if (video.stem, suffix) in companions), None)
            for suffixes in (AUDIO_SUFFIXES, SCORE_SUFFIXES)
        )
        files = {"video": video, "audio": audio, "tags": companions.get((video.stem, TAGS_SUFFIX)), "score": score}
        groups[str(video)] = {field: path for field, path in files.items() if path is not None}
    return groups


def _group_music(paths: Iterable[PurePosixPath]) -> dict[str, dict[str, PurePosixPath]]:
    """Return the files of each piece by the name of its first, as `discover_music` pairs them."""
    pieces: dict[PurePosixPath, dict[str, PurePosixPath]] = defaultdict(dict)
    names: dict[PurePosixPath, str] = {}
    for path in sorted(path for path in paths if _is_music(path) and not _is_hidden(path)):
        piece = path.with_name(path.name[: -len(path.suffix)])
        names.setdefault(piece, str(path))
        pieces[piece].setdefault(path.suffix.lower(), path)
    groups = {}
    known = set(paths)
    for piece, files in pieces.items():
        found = {
            field: next((files[suffix] for suffix in suffixes if suffix in files), None)
            for field, suffixes in (("audio", AUDIO_SUFFIXES), ("score", SCORE_SUFFIXES))
        }
        tags = piece.with_name(piece.name + TAGS_SUFFIX)
        found["tags"] = tags if tags in known else None
        groups[names[piece]] = {field: path for field, path in found.items() if path is not None}
    return groups


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


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


def _is_music(path: PurePath) -> bool:
    return path.suffix.lower() in {*SCORE_SUFFIXES, *AUDIO_SUFFIXES} and ".v2m" not in path.suffixes[-2:]


def _find_companions(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the files that belong to videos, by the stem of the video and their suffix in lower case."""
    return _index_companions(path for path in sorted(folder.iterdir()) if path.is_file()) if folder.is_dir() else {}


def _index_companions(paths: Iterable[PathT]) -> dict[tuple[str, str], PathT]:
    companions = {}
    for path in paths:  # a suffix in lower case, which comes last where they are sorted, goes before others
        for suffix in COMPANION_SUFFIXES:
            if path.name.lower().endswith(suffix):
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
        if is_wanted(path) and path.is_file() and not _is_hidden(path.relative_to(folder))
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
