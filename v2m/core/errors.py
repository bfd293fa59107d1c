"""Errors that are no fault of the code, and the exit code of each; all others are bugs (exit code 1)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from v2m.core import extras

OK, BUG, USAGE, INPUT_REFUSED, ENVIRONMENT, MEMORY, DISK, BATCH = range(8)
SIGINT, SIGPIPE, SIGTERM = 130, 141, 143  # as shells count: 128 + the signal's number
DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
OOM_PHRASES = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc")


class UsageError(ValueError):
    """The command asks for something that cannot be: a wrong option, an output that exists."""


class OutputError(UsageError):
    """An output cannot be written where it was asked for; `replaceable` where overwriting it would help."""

    def __init__(self, message: str, *, replaceable: bool = False) -> None:
        super().__init__(message)
        self.replaceable = replaceable


class UnsupportedRequestError(UsageError):
    """A generator lacks a capability. requested, available: names of extras and of fields of `Controls`."""

    def __init__(self, generator: str, requested: Sequence[str], available: Sequence[str]) -> None:
        super().__init__(
            f"the generator {generator} cannot do {', '.join(requested)}; "
            f"it can do {', '.join(available) or 'none of these'}"
        )
        self.generator, self.requested, self.available = generator, tuple(requested), tuple(available)


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


def format_error(  # noqa: PLR0911 - one return for each kind
    error: BaseException, output_option: str = "--out", overwrite_option: str = "--overwrite"
) -> str:
    """One line: what was wrong and, where known, the cure in the words of the command at hand.

    Args:
        error: What ended the work.
        output_option: The command's option for its output.
        overwrite_option: The command's option that replaces files.
    """
    text, code = " ".join(str(error).split()) or type(error).__name__, exit_code(error)
    if code == DISK and isinstance(error, OSError) and not isinstance(error, DiskFullError):
        cure = "free some room" if error.errno in DISK_FULL_ERRNOS else "change the permissions"
        problem = f"{_file_prefix(error)}the output cannot be written ({error.strerror})"
        return f"{problem}: {cure}, or give another {output_option}"
    if isinstance(error, OutputError):
        cure = f"{overwrite_option} or another" if error.replaceable else "another"
        return f"{text}: give {cure} {output_option}"
    if isinstance(error, UnsupportedRequestError):
        requested, available = (
            ", ".join(f"--{name}" for name in names) for names in (error.requested, error.available)
        )
        return f"the generator {error.generator} cannot do {requested}; it can do {available or 'none of these'}"
    if code == USAGE and isinstance(error, OSError) and error.filename:
        return f"{_file_prefix(error)}{error.strerror}; check the name"
    if code == MEMORY:
        return text if "out of memory" in text.lower() else f"out of memory: {text}"
    if code in {SIGINT, SIGTERM}:
        return f"{'interrupted' if code == SIGINT else 'terminated'}; no unfinished file is left behind"
    if code == BUG:
        return f"a bug in v2m, please report it ({type(error).__name__}: {text}); --debug shows where"
    cure = extras.cure(error)
    return f"{text}: {cure}" if cure else text


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
    """Return whether memory ran out, on any device.

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
