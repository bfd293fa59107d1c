"""The command `v2m prepare`: encode videos with their music into shards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.cli.engine import ENGINE_FLAGS, add_engine_arguments, build_engine
from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser, add_fields, flatten_message, to_plain
from v2m.core.errors import UsageError
from v2m.core.protocols import Tagger
from v2m.core.remote import is_address
from v2m.data.config import PrepareConfig
from v2m.taggers.base import as_tagger

if TYPE_CHECKING:
    from v2m.data.sources import Source

CONFIG_FIELDS = [field.name for field in fields(PrepareConfig)]
DEFAULT_TAGGER = {"class_path": "v2m.taggers.heuristic.HeuristicTagger"}


def build_parser() -> OneLineParser:
    """Return the parser; fields of PrepareConfig are flags with hyphens, YAML keys with underscores."""
    description = "Encode videos with their music once, into the shards that train.py reads. Run again, it resumes."
    parser = OneLineParser(prog="v2m prepare", description=description)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        type=str,
        help="folders of videos, videos, VidMuse's lists (.jsonl); with --unpaired, of music",
    )
    add("out", type=str, help="the folder of the dataset")
    add("--config", action="config", help="a YAML file with any of these values")
    add("--device", type=str, default="auto", help="auto, cuda, cuda:1, mps or cpu")
    processes = "processes side by side; default: one per 4 cores, and with --engine local at most 4"
    add("--processes", type=int | None, default=None, help=processes)
    add_engine_arguments(parser)
    add("--shard-samples", type=int, default=100, help="most samples of a shard")
    add("--shard-mb", type=float, default=256.0, help="most megabytes of a shard")
    safe = "refuse encoders and taggers whose license forbids commercial use, or is not known"
    add("--commercial-safe", action="store_true", help=safe)
    add("--quiet", action="store_true", help="show no progress")
    add("--debug", action="store_true", help="show where an error came from")
    add_fields(parser, PrepareConfig, CONFIG_FIELDS)
    parser.add_subclass_arguments(Tagger, "tagger", default=DEFAULT_TAGGER)
    return parser


def run(argv: Sequence[str]) -> str:
    """Encode the videos; return as text what was kept and why the rest was not."""
    parser = build_parser()
    args = parser.parse_args(list(argv))
    from v2m.data import prepare  # torch, only now
    from v2m.data.remote_dataset import local_folder

    try:
        config = PrepareConfig(**{name: args[name] for name in CONFIG_FIELDS})
        tagger_config = to_plain(args.tagger)
        tagger = parser.instantiate(args).tagger
    except (ValueError, TypeError) as error:
        raise UsageError(flatten_message(str(error))) from error
    if args.commercial_safe:
        prepare.check_licenses(config, as_tagger(tagger))
    engine = build_engine(args, is_parallel=True)
    videos = _discover(args.inputs, config.unpaired)
    with local_folder(args.out) if is_address(args.out) else nullcontext(Path(args.out)) as out:
        job = prepare.PrepareJob(
            out, config, tagger, tagger_config, args.device, args.processes,
            args.shard_samples, args.shard_mb, args.quiet,
        )  # fmt: skip
        if not config.unpaired:
            as_tagger(tagger).prepare()
        return prepare.format_report(*prepare.prepare(videos, job, engine))


def _discover(inputs: Sequence[str], unpaired: bool) -> Sequence[Source]:
    from v2m.data import sources

    addresses = [name for name in inputs if is_address(name)]
    if not addresses:
        paths = [Path(path) for path in inputs]
        return sources.discover_music(paths) if unpaired else sources.discover_videos(paths)
    if len(addresses) < len(inputs):
        raise UsageError("some inputs are addresses and some are not: prepare them one after the other")
    return sources.discover_remote(addresses, unpaired=unpaired)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    flags = {"out": "OUT", "num_processes": "--processes", "low_memory": "--tagger.low_memory", **ENGINE_FLAGS}
    return run_command(run, argv, name="v2m prepare", flags=flags)
