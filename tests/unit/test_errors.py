"""Every kind of failure has its exit code, and they are told apart."""

from __future__ import annotations

import errno

import pytest

from v2m.errors import MissingError, RefusedError, UsageError, exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (FileExistsError("x"), 2),
        (RefusedError("empty", "x"), 3),
        (MissingError("x"), 4),
        (ModuleNotFoundError("x"), 4),
        (MemoryError(), 5),
        (OSError(errno.ENOSPC, "x"), 6),
        (OSError(errno.EROFS, "x"), 6),
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (ValueError("x"), 1),
        (OSError(errno.EIO, "x"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
