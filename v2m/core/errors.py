"""What can go wrong by no fault of the code, and the exit code of each. Everything else is a bug (exit code 1)."""

from __future__ import annotations

import errno

OK, BUG, USAGE, INPUT_REFUSED, ENVIRONMENT, MEMORY, DISK, BATCH = range(8)
SIGINT, SIGPIPE, SIGTERM = 130, 141, 143  # as shells count: 128 + the signal's number
DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
OOM_PHRASES = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc")


class UsageError(ValueError):
    """The command asks for something that cannot be: a wrong option, an output that exists."""


class InvalidInputError(ValueError):
    """The input is not a video that can be scored. `reason` is a stable word, such as `too_long` or `no_video`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DependencyError(RuntimeError):
    """The machine lacks something: ffmpeg, a package, model weights; `repository` is where they could be had."""

    def __init__(self, message: str, repository: str | None = None) -> None:
        super().__init__(message)
        self.repository = repository


class DiskFullError(OSError):
    """A disk is too full for something other than the output; the message says for what, and what helps."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOSPC, message)

    def __str__(self) -> str:
        return str(self.strerror)


def format_error(error: BaseException) -> str:
    """One line for people: what was wrong and, where that can be said, what helps."""
    text, code = " ".join(str(error).split()) or type(error).__name__, exit_code(error)
    if code == DISK and isinstance(error, OSError) and not isinstance(error, DiskFullError):
        cure = "free some room" if error.errno in DISK_FULL_ERRNOS else "change the permissions"
        return f"{_file_prefix(error)}the output cannot be written ({error.strerror}): {cure}, or give another --out"
    if code == USAGE and isinstance(error, OSError) and error.filename:
        return f"{_file_prefix(error)}{error.strerror}; check the name"
    if code == MEMORY:
        return text if "out of memory" in text.lower() else f"out of memory: {text}"
    if code in {SIGINT, SIGTERM}:
        return f"{'interrupted' if code == SIGINT else 'terminated'}; no unfinished file is left behind"
    if code == BUG:
        return f"a bug in v2m, please report it ({type(error).__name__}: {text}); --debug shows where"
    return text


def _file_prefix(error: OSError) -> str:
    return f"{str(error.filename)!r}: " if error.filename else ""


def exit_code(error: BaseException) -> int:
    """The exit code that `infer.py` ends with when `error` is what stopped it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS):
        return DISK  # an input that may not be read is refused
    if is_out_of_memory(error):
        return MEMORY
    kinds = {
        SIGINT: KeyboardInterrupt,
        SIGPIPE: BrokenPipeError,
        INPUT_REFUSED: InvalidInputError,
        ENVIRONMENT: (DependencyError, ImportError),
        USAGE: (UsageError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    }
    return next((code for code, kind in kinds.items() if isinstance(error, kind)), BUG)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device.

    torch's own error is known by its name, which spares importing torch; where an allocator, a kernel or a memory map
    fails below it, torch raises a RuntimeError that only its words tell from others.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    if not isinstance(error, RuntimeError) or isinstance(error, DependencyError):
        return False
    text = str(error).lower()
    return any(words in text for words in OOM_PHRASES)
