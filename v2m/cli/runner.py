"""What all commands share: a parser whose errors are one line, and how each ends."""

from __future__ import annotations

import difflib
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from v2m.core import errors
from v2m.core.errors import UsageError


class Parser(ArgumentParser):
    """Raises `UsageError` with one line instead of printing usage and leaving."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002 - jsonargparse's signature
        raise UsageError(self._one_line(message))

    def _one_line(self, message: str) -> str:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see --help"
            return f"unknown option {unknown[0]}: {hint}"
        return one_line(message)


def plain(value: Any) -> Any:
    """What was parsed, as a YAML or JSON holds it."""
    if isinstance(value, Namespace):
        return {key: plain(item) for key, item in vars(value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def run(work: Callable[[Sequence[str]], str], argv: Sequence[str], *, name: str, place: str) -> int:
    """Runs `work` on the arguments, prints what it gives back and returns the exit code, as infer.py's.

    Every error is one line, which begins with `name`; `place` is what the command calls its output.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(errors.SIGTERM))
    logging.basicConfig(format="%(message)s")
    try:
        sys.stdout.write(work(argv) + "\n")
        return errors.OK
    except BaseException as error:
        code = errors.exit_code(error)
        if code == errors.OK:  # after --help
            return code
        if "--debug" in argv:
            traceback.print_exc()
        sys.stderr.write(f"{name}: {errors.format_error(error).replace('another --out', f'another {place}')}\n")
        return code
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def one_line(message: str) -> str:
    """jsonargparse's paragraphs as one line: what is wrong, without the types it tried."""
    lines = [line.strip(" -") for line in message.splitlines()]
    noise = (
        *("Subtypes:", "Errors:", "Given value type:", "Given value: Namespace("),
        *("Does not validate", "Expected a <class 'NoneType'>"),
    )
    return " ".join(line for line in lines if line and not line.startswith(noise))
