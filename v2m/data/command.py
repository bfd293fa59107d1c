"""The command line of `python -m v2m.data.prepare`."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from v2m import errors
from v2m.data.settings import Settings
from v2m.errors import UsageError
from v2m.interfaces import Tagger

NOISE = ("Subtypes:", "Errors:", "Given value type:", "Given value: Namespace(", "Does not validate")
PALETTE = {"class_path": "v2m.taggers.palette.Palette"}


class _Parser(ArgumentParser):
    """Raises `UsageError` with one line instead of printing usage and leaving."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002 - jsonargparse's signature
        lines = (line.strip(" -") for line in message.splitlines())
        raise UsageError(f"{' '.join(line for line in lines if line and not line.startswith(NOISE))}; see --help")


def build_parser() -> ArgumentParser:
    parser = _Parser(
        prog="python -m v2m.data.prepare",
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
    parser.add_class_arguments(Settings)
    parser.add_subclass_arguments(Tagger, "tagger", default=PALETTE)
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Raises UsageError for a command that cannot be."""
    return build_parser().parse_args(list(argv))


def run(asked: Namespace) -> str:
    """Does it; what was kept and why, as text."""
    from v2m.data import prepare, sources

    try:
        settings = Settings(**{each.name: asked[each.name] for each in fields(Settings)})
        chosen = _plain(asked.tagger)
        tagger = build_parser().instantiate(asked).tagger
    except (ValueError, TypeError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    out = Path(asked.out)
    found = sources.find([Path(each) for each in asked.inputs])
    work = prepare.Work(
        out, settings, tagger, chosen, asked.device, asked.processes, asked.shard_samples, asked.shard_mb, asked.quiet
    )
    if prepared := getattr(tagger, "prepare", None):
        prepared()
    return prepare.report(*prepare.prepare(found, work))


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code, as infer.py's; every error is one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(errors.SIGTERM))
    logging.basicConfig(format="%(message)s")
    try:
        sys.stdout.write(run(parse(argv)) + "\n")
        return errors.OK
    except BaseException as error:
        code = errors.exit_code(error)
        if code == errors.OK:  # after --help
            return code
        if "--debug" in argv:
            traceback.print_exc()
        sys.stderr.write(f"v2m.data.prepare: {errors.describe(error).replace('another --out', 'another OUT')}\n")
        return code
