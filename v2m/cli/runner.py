"""The frame of every command: one line per error, with the command's own flags, and the exit code."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from v2m.core import errors

_OPTION = re.compile(r"`([a-z]\w*(?:\.\w+)*)(?:=([^\s`]+))?`")
_terminated = threading.Event()


def run_command(
    work: Callable[[Sequence[str]], str | int], argv: Sequence[str], *, name: str, flags: Mapping[str, str]
) -> int:
    """Run `work` on the arguments and return the exit code of `v2m.core.errors`.

    `work` returns the text to print, or an exit code where it has printed by itself. `name` heads the error lines.
    """
    _terminated.clear()
    before = signal.signal(signal.SIGTERM, _terminate)
    _open_standard_streams()
    try:
        result = work(argv)
        if isinstance(result, str):
            sys.stdout.write(result + "\n")
        sys.stdout.flush()
        return result if isinstance(result, int) else errors.OK
    except BaseException as error:
        code = errors.exit_code(error)
        if code == errors.SIGPIPE:
            _drop_standard_streams()
        elif code != errors.OK:  # which it is after --help
            if "--debug" in argv:
                traceback.print_exc()
            sys.stderr.write(f"{name}: {with_flags(errors.format_error(error), flags, code)}\n")
        return code
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def with_flags(text: str, flags: Mapping[str, str], code: int = errors.OK) -> str:
    """Return a message with flags in the place of fields: `low_memory=True` becomes --low-memory.

    `flags` has the command's flag of a field, or of the object before a field's dot, where that is not its name behind
    two hyphens.
    """

    def flag(match: re.Match[str]) -> str:
        field, value = match.groups()
        owner, dot, name = field.partition(".")
        default = f"{flags.get(owner, f'--{owner}')}.{name}" if dot else f"--{field.replace('_', '-')}"
        option = flags.get(field, default)
        if value == "True":
            return f"{option} true" if "." in option else option
        return option if value is None else f"{option} {value}"

    return _OPTION.sub(flag, text) + ("; --debug shows where" if code == errors.BUG else "")


def exit_if_terminated() -> None:
    """Exit after a SIGTERM whose exception was lost while something was tidied up."""
    if _terminated.is_set():
        raise SystemExit(errors.SIGTERM)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a signal handler
    _terminated.set()
    raise SystemExit(errors.SIGTERM)


def _open_standard_streams() -> None:
    """Open standard streams that are closed, or the next opened file would take their number."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes


def _drop_standard_streams() -> None:
    """Discard what the streams still buffer; it would raise once more when Python exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
