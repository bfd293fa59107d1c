"""The command that writes a checkpoint in another layout: `v2m convert SOURCE DEST --to LAYOUT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser
from v2m.core.errors import UsageError

DTYPES = ("float32", "bfloat16", "float16")
LAYOUTS = ("v2m", "transformers", "audiocraft", "vidmuse")


def build_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    description = "Writes a checkpoint of a music model again, in another layout."
    parser = OneLineParser(prog="v2m convert", description=description)
    sources = "a folder, or a repository of the hub, in any of the layouts; or a training checkpoint (.ckpt, .th)"
    parser.add_argument("source", type=str, help=sources)
    parser.add_argument("dest", type=str, help="the folder to write, a new one")
    parser.add_argument("--to", choices=LAYOUTS, default="v2m", help="the layout to write")
    parser.add_argument("--dtype", choices=DTYPES, default=None, help="of the weights written; as in SOURCE by default")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def convert(argv: Sequence[str]) -> str:
    """Convert the checkpoint; return one line on what was written."""
    args = build_parser().parse_args(list(argv))
    dest = Path(args.dest).expanduser()
    if dest.exists() and (not dest.name or not dest.is_dir() or any(dest.iterdir())):
        raise UsageError(f"{args.dest!r} exists already: give a new folder")
    from v2m.checkpoints import export  # torch, only now

    return export.convert_checkpoint(args.source, dest, args.to, args.dtype)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return run_command(convert, argv, name="v2m convert", flags={"out": "DEST"})
