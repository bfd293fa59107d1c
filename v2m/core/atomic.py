"""Output files: names, claims, checks before the work, and atomic writing, never over the input."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from v2m.core.errors import UsageError

NAME_MAX = 255  # bytes, on every usual file system
TEMPORARY_GLOB = ".*.v2m-*"  # of unfinished files and folders
MADE_SUFFIX = ".v2m"  # of an output's name, before the suffix of its kind


def name_outputs(folders: Mapping[Path, Path]) -> dict[Path, Path]:
    """Return the path of each video's outputs up to their suffixes, of videos with an output folder.

    The same in each run: `clip.v2m`; `clip.mp4.v2m` where a `clip.mov` would get that name, too (or a `CLIP.mov`: file
    systems may ignore case); a hash of the path in it where folders differ. Outputs that are there, with their sidecar,
    keep their names.
    """
    paths = {video: [folders[video] / f"{label}{MADE_SUFFIX}" for label in _output_labels(video)] for video in folders}
    owned = {video: [_is_output_of(path, video) for path in paths[video]] for video in folders}
    recorded = {video: paths[video][known.index(True)] for video, known in owned.items() if True in known}
    shared = Counter(recorded.values())
    names = {video: path for video, path in recorded.items() if shared[path] == 1}
    for level in range(3):
        rivals = Counter(
            str(path).casefold() for path in [*(paths[video][level] for video in folders), *names.values()]
        )
        free = (video for video in folders if video not in names and owned[video][level] is not False)
        names |= {video: paths[video][level] for video in free if rivals[str(paths[video][level]).casefold()] == 1}
    return {video: names.get(video, paths[video][-1]) for video in folders}


def _output_labels(video: Path) -> tuple[str, str, str]:
    digest = hashlib.sha256(os.fsencode(os.path.abspath(video))).hexdigest()[:8]  # noqa: PTH100 - links stay
    return video.stem, video.name, f"{video.name}-{digest}"


def _is_output_of(path: Path, video: Path) -> bool | None:
    """Return whether the sidecar of `path` names `video`; None where it names no file that is there."""
    try:
        record = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))["input"]
        source, size = Path(record["file"]), record["bytes"]
        is_copy = source.name == video.name and (size == video.stat().st_size or not source.exists())
        if is_copy or source == Path(os.path.abspath(video)):  # noqa: PTH100 - as the sidecar has it
            return True
        return False if source.exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def claim(out: Path) -> Iterator[bool]:
    """Hold `out` for this process, by a lock file beside it; yield False where another process holds it.

    Yields True, without a lock, where there can be none: in a read-only folder, on a file system without locks.
    """
    digest = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:8]
    path = out.with_name(f".{out.name[:40]}{MADE_SUFFIX}-{digest}.lock")
    file, is_free = None, True
    try:
        file = _open_locked(path)
    except BlockingIOError:
        is_free = False
    except OSError:
        pass  # what else fails here fails in the work, with a better message
    try:
        yield is_free
    finally:
        if file is not None:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()  # before the lock ends: afterwards it may be another process's
            file.close()


def _open_locked(path: Path) -> IO[str]:
    """Open and lock a file, made if need be. Raise BlockingIOError where another process has locked it."""
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            lock(file)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # removed by its last holder after it was opened here


def check_output(video: Path, out: Path, overwrite: bool) -> None:
    """Refuse before any long work what would fail at its end.

    Raises UsageError where `out` is the input (also by a link), exists and may not be replaced, is a folder, lies in
    none, or has too long a name; PermissionError where the folder is read-only.
    """
    folder = out.parent
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: create it, or give another output")
    check_name_length(out)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: give a file name in it")
    if out.exists() and out.samefile(video):
        raise UsageError(f"{out} is the input itself: give another output, the input is never changed")
    if os.path.lexists(out) and not overwrite:
        raise UsageError(f"{out} exists already: give `overwrite=True` or another `out`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this folder cannot be written to", str(folder))


def check_name_length(path: Path) -> None:
    """Raise UsageError where a name is too long for a file system."""
    if (size := len(os.fsencode(path.name))) > NAME_MAX:
        problem = f"{path.name[:40]}…{path.suffix} would have {size} bytes, more than {NAME_MAX}"
        raise UsageError(f"{problem}: give a shorter `out`")


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def temporary_sibling(out: Path) -> Iterator[Path]:
    """Yield a new empty file beside `out`, deleted at the end unless `publish` has moved it."""
    path = _temporary_name(out)
    path.open("xb").close()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` at the end of the block, unless an error ends it; make folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_sibling(path) as temporary:
        with temporary.open("wb") as file:
            yield file
        publish(temporary, path)


def _temporary_name(out: Path) -> Path:
    return out.with_name(f".{out.stem[:40]}.v2m-{uuid.uuid4().hex[:8]}{out.suffix}")


def publish(path: Path, out: Path) -> None:
    """Move `path` to `out` once its bytes are on the disk."""
    with path.open("r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
    path.replace(out)
    fsync_dir(out.parent)


def atomic_directory(
    folder: Path, writer: Callable[[Path], None], *, may_replace: Callable[[set[str]], bool] = lambda names: not names
) -> None:
    """Create `folder` whole or not at all: `writer` fills a temporary one, which is then renamed.

    `folder` is new or empty, or holds files of names that `may_replace` accepts; else UsageError is raised.
    """
    _check_replaceable(folder, may_replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (_temporary_name(folder) for _ in range(2))
    temporary.mkdir()
    try:
        writer(temporary)
        _check_replaceable(folder, may_replace)  # again: writing took a while
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(folder: Path, may_replace: Callable[[set[str]], bool]) -> None:
    if folder.is_file() or (folder.is_symlink() and not folder.exists()):
        raise UsageError(f"{str(folder)!r} is a file: give a new folder")
    if not folder.name:
        raise UsageError(f"{str(folder)!r} cannot be replaced: give a new folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not may_replace(names):
        raise UsageError(f"{str(folder)!r} holds something already ({min(names)}): give a new folder")


def fsync_dir(folder: Path) -> None:
    """Keep the names in `folder` when the power fails; without effect on Windows."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock(file: IO[str]) -> None:
    """Hold an open file for this process alone until it is closed.

    Raise BlockingIOError if another process does, OSError where there are no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        try:
            import fcntl
        except ModuleNotFoundError:  # on WebAssembly
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
