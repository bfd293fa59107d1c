"""The command `v2m`: `v2m clip.mp4`, or one of the subcommands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import v2m
from v2m.cli.runner import with_flags
from v2m.core import errors
from v2m.media.decoder_process import start_ahead

COMMANDS = {
    "score": "write each video again with background music (the default)",
    "tag": "write the music tags of each video of a corpus",
    "prepare": "encode videos with their music into WebDataset shards",
    "synthesize": "make synthetic training clips offline",
    "train": "train the music model: fit, validate, test, predict",
    "evaluate": "measure the music of finished videos",
    "convert": "write a checkpoint in another layout",
    "app": "open the web page",
    "serve": "answer over HTTP",
    "mcp": "offer tools to agents (Model Context Protocol)",
}


def usage() -> str:
    """The overview that `v2m --help` prints."""
    rows = [f"  {name:<11} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: v2m [COMMAND] ...", "", *rows, "", "v2m COMMAND --help lists the options of a command."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, or `score`; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help"}:
        sys.stdout.write(usage() + "\n")
        return 0
    if words[0] in {"-V", "--version"}:
        sys.stdout.write(f"v2m {v2m.__version__}\n")
        return 0
    name, rest = (words[0], words[1:]) if words[0] in COMMANDS else ("score", words)
    if name == "score":
        start_ahead(rest)  # it takes as long as the import
    try:
        command = importlib.import_module(f"v2m.cli.{name}")
    except (ImportError, KeyboardInterrupt) as error:  # Lightning's commands import it at their top
        sys.stderr.write(f"v2m {name}: {with_flags(errors.format_error(error), {})}\n")
        return errors.exit_code(error)
    return command.main(rest)
