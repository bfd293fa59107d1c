"""The command that offers v2m's tools to agents over standard input and output: `v2m mcp`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from jsonargparse import Namespace

from v2m.cli.runner import run_command
from v2m.core import errors
from v2m.core.arguments import OneLineParser
from v2m.core.errors import UsageError
from v2m.core.timing import Seconds

OUT = "v2m-outputs"


def build_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    description = "Offers v2m's tools to agents by the Model Context Protocol, over standard input and output."
    parser = OneLineParser(prog="v2m mcp", description=description)
    add = parser.add_argument
    add("--folder", action="append", help="folder whose files may be read; repeatable; default: the current")
    add("--out", type=Path, default=Path(OUT), help="folder of the outputs, each job in a new one")
    add("--seconds", type=Seconds, default=600.0, help="longest video that is taken")
    add("--minutes", type=float, default=60.0, help="that one job may take")
    add("--debug", action="store_true", help="show where an error came from")
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Parse a command. Raise UsageError for an invalid one."""
    args = build_parser().parse_args(list(argv))
    args.folder = [Path(folder) for folder in args.folder or ["."]]
    limits = {"seconds": args.seconds, "minutes": args.minutes}
    problems = [f"{name} {value} must be above 0" for name, value in limits.items() if value <= 0]
    problems += [f"{str(folder)!r} is no folder" for folder in args.folder if not folder.is_dir()]
    problems += [f"--out {str(args.out)!r} is no folder"] * (args.out.exists() and not args.out.is_dir())
    if problems:
        raise UsageError("; ".join(problems))
    return args


def serve(argv: Sequence[str]) -> int:
    """Serve until standard input ends."""
    args = parse(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no call starts a download
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    errors.require_packages("mcp")
    with _claim_standard_output() as output:
        from v2m.service import mcp
        from v2m.service.mcp_tools import ToolLimits, Tools

        folders = tuple(dict.fromkeys(folder.resolve() for folder in args.folder))
        mcp.serve(Tools(ToolLimits(folders, args.out.resolve(), args.seconds, args.minutes)), output)
    return errors.OK


@contextmanager
def _claim_standard_output() -> Iterator[TextIO]:
    """Yield standard output for the protocol alone.

    What libraries and other processes print goes to standard error from now on, until this process ends.
    """
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n") as output, redirect_stdout(sys.stderr):
        os.dup2(2, 1)
        yield output


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return run_command(serve, argv, name="v2m mcp", flags={})
