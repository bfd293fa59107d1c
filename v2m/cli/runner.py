"""The frame of every command: one line per error, and the exit code."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from v2m.core import errors


def run_command(work: Callable[[Sequence[str]], str], argv: Sequence[str], *, name: str, output_option: str) -> int:
    """Run `work` on the arguments, print what it returns, and return the exit code of `v2m.core.errors`.

    Args:
        work: Does the command's work and returns the text to print.
        argv: The command's arguments.
        name: The command, at the head of its error lines.
        output_option: The command's own word for its output, for the cure of an error.
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
        sys.stderr.write(f"{name}: {errors.format_error(error, output_option)}\n")
        return code
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
