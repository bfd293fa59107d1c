"""The command `v2m synthesize`: synthetic training clips, made offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser
from v2m.core.timing import Seconds
from v2m.data.synthetic import make_clips


def build_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    parser = OneLineParser(prog="v2m synthesize", description="Makes videos with music that follows them.")
    parser.add_argument("out", type=str, help="a new folder, or one that was begun")
    parser.add_argument("--count", type=int, default=100, help="how many clips")
    parser.add_argument("--seconds", type=Seconds, default=8.0, help="how long each is")
    parser.add_argument("--seed", type=int, default=0, help="another gives other clips")
    parser.add_argument("--processes", type=int | None, default=None, help="that work side by side")
    parser.add_argument("--scores-only", action="store_true", help="no sound: a score as MIDI alone")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def synthesize(argv: Sequence[str]) -> str:
    """Make the clips that the options ask for; return one line with their number."""
    args = build_parser().parse_args(list(argv))
    count = make_clips(
        Path(args.out), args.count, args.seconds, args.seed, args.processes,
        with_audio=not args.scores_only, quiet=False,
    )  # fmt: skip
    return f"{count} new clips of {args.count} in {args.out}"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return run_command(synthesize, argv, name="v2m synthesize", flags={"out": "OUT"})
