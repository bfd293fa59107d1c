"""Exit codes and one-line messages of every kind of error."""

from __future__ import annotations

import errno

import pytest
import torch

from v2m.core.errors import (
    DependencyError,
    DiskFullError,
    InvalidInputError,
    UsageError,
    error_text,
    exit_code,
    format_error,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (FileExistsError("x"), 2),
        (InvalidInputError("empty", "x"), 3),
        (InvalidInputError("missing", "x"), 2),  # as any other name of nothing
        (NotADirectoryError("x"), 2),
        (DependencyError("x"), 4),
        (ModuleNotFoundError("x"), 4),
        (MemoryError(), 5),
        (OSError(errno.ENOMEM, "x"), 5),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 5),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"), 5),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), 5),
        (RuntimeError("x"), 1),
        (DependencyError("the notes say: out of memory"), 4),
        (DiskFullError("x"), 6),
        (OSError(errno.ENOSPC, "x"), 6),
        (OSError(errno.EROFS, "x"), 6),
        (PermissionError(errno.EACCES, "x"), 6),
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (BrokenPipeError("x"), 141),
        (ValueError("x"), 1),
        (OSError(errno.EIO, "x"), 1),
    ],
)
def test_exit_code_of_each_error(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No room", "x"), "'x': the output cannot be written (No room): free some room, or give"),
        (PermissionError(errno.EACCES, "Denied", "a\nb"), r"'a\nb': the output cannot be written (Denied): change the"),
        (FileNotFoundError(errno.ENOENT, "Gone", "x"), "'x': Gone; check the name"),
        (UsageError("two\nlines"), "two lines"),
        (MemoryError(), "out of memory: MemoryError"),
        (MemoryError("no room for 2 GiB; lower it"), "out of memory: no room for 2 GiB; lower it"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "CUDA out of memory. Tried"),
        (DiskFullError("9 GB of x are to go\nto y: free some"), "9 GB of x are to go to y: free some"),
        (KeyError("x"), "a bug in v2m, please report it (KeyError: 'x')"),
    ],
)
def test_format_error_gives_one_line_for_every_error(error: BaseException, line: str) -> None:
    assert format_error(error).startswith(line)


def test_one_line_joins_the_lines_and_names_the_class_of_an_empty_message() -> None:
    assert error_text(ValueError("a\n  b\tc")) == "a b c"
    assert error_text(ValueError("a\n  b\tc"), 3) == "a b"
    assert error_text(ValueError()) == "ValueError"
