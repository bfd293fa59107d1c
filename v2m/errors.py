"""What can go wrong by no fault of the code, and the exit code of each. Everything else is a bug (exit code 1)."""

from __future__ import annotations

import errno

OK, BUG, USAGE, REFUSED, ENVIRONMENT, MEMORY, DISK, BATCH, SIGINT, SIGTERM = 0, 1, 2, 3, 4, 5, 6, 7, 130, 143


class UsageError(ValueError):
    """The command asks for something that cannot be: a wrong option, an output that exists."""


class RefusedError(ValueError):
    """The input is not a video that can be scored. `reason` is a stable word, such as `too_long` or `no_video`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MissingError(RuntimeError):
    """The machine lacks something: ffmpeg, a package, model weights."""


def exit_code(error: BaseException) -> int:
    """The exit code that `infer.py` ends with when `error` is what stopped it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}:
        return DISK
    kinds = {
        SIGINT: KeyboardInterrupt,
        REFUSED: RefusedError,
        MEMORY: MemoryError,
        ENVIRONMENT: (MissingError, ImportError),
        USAGE: (UsageError, FileNotFoundError, FileExistsError, PermissionError),
    }
    return next((code for code, kind in kinds.items() if isinstance(error, kind)), BUG)
