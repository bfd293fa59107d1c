"""The command line of `v2m prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser, flatten_message, to_plain
from v2m.core.errors import UsageError
from v2m.core.protocols import Tagger
from v2m.data.config import PrepareConfig
from v2m.taggers.base import as_tagger

PALETTE = {"class_path": "v2m.taggers.heuristic.Palette"}


def build_parser() -> ArgumentParser:
    parser = OneLineParser(
        prog="v2m prepare",
        description="Encodes videos with their music once, into the shards that train.py reads. Run again, it goes on.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=str, help="folders of videos, videos, or VidMuse's lists (.jsonl)")
    add("out", type=str, help="the folder of the dataset")
    add("--config", action="config", help="a YAML file with any of these values")
    add("--device", type=str, default="auto", help="auto, cuda, cuda:1, mps or cpu")
    add(
        "--processes",
        type=int | None,
        default=None,
        help="that work side by side; one for every 4 cores, at most 4, by default",
    )
    add("--shard_samples", type=int, default=100, help="most samples of a shard")
    add("--shard_mb", type=float, default=256.0, help="most megabytes of a shard")
    add("--quiet", action="store_true", help="show no progress")
    add("--debug", action="store_true", help="show where an error came from")
    parser.add_class_arguments(PrepareConfig)
    parser.add_subclass_arguments(Tagger, "tagger", default=PALETTE)
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Raises UsageError for a command that cannot be."""
    return build_parser().parse_args(list(argv))


def run(asked: Namespace) -> str:
    """Does it; what was kept and why, as text."""
    from v2m.data import prepare, sources

    try:
        settings = PrepareConfig(**{each.name: asked[each.name] for each in fields(PrepareConfig)})
        chosen = to_plain(asked.tagger)
        tagger = build_parser().instantiate(asked).tagger
    except (ValueError, TypeError) as error:
        raise UsageError(flatten_message(str(error))) from error
    out = Path(asked.out)
    found = sources.discover_videos([Path(each) for each in asked.inputs])
    work = prepare.PrepareJob(
        out, settings, tagger, chosen, asked.device, asked.processes, asked.shard_samples, asked.shard_mb, asked.quiet
    )
    as_tagger(tagger).prepare()
    return prepare.format_report(*prepare.prepare(found, work))


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    return run_command(lambda given: run(parse(given)), argv, name="v2m prepare", output_option="OUT")
