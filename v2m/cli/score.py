"""The command line of `infer.py`: recipe and flags in, one line and an exit code out."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from v2m.cli.engine import ENGINE_FLAGS, add_engine_arguments, build_engine
from v2m.cli.runner import exit_if_terminated, run_command, with_flags
from v2m.core import errors, progress
from v2m.core.allocator import reuse_freed_memory
from v2m.core.arguments import OneLineParser, to_plain
from v2m.core.engine import Engine
from v2m.core.errors import UsageError
from v2m.core.remote import is_address
from v2m.core.timing import parse_seconds
from v2m.core.types import Controls, InpaintRequest
from v2m.media.c2pa_manifest import C2paCredentials
from v2m.pipeline import batch
from v2m.pipeline.outputs import printable
from v2m.pipeline.recipes import DEFAULT_RECIPE, Recipe, add_recipe_arguments, build_recipe, recipe_path
from v2m.pipeline.result import Extras, ScoreResult
from v2m.pipeline.sidecar import sha256_file

FLAGS = {"source": "--inpaint-source", **ENGINE_FLAGS}
EXIT_CODES = """exit codes: 0 done, 1 a bug, 2 wrong usage, 3 input refused, 4 something missing on this machine,
5 out of memory, 6 disk full or not writable, 7 some videos of a batch failed, 130 interrupted,
141 nobody reads the output any more, 143 terminated"""


@dataclass(frozen=True)
class Arguments:
    """A parsed command."""

    videos: tuple[str, ...]
    out: str | None
    overwrite: bool
    quiet: bool
    debug: bool
    recipe: Recipe
    controls: Controls
    extras: Extras
    c2pa: C2paCredentials | None
    engine: Engine | None = None


def build_parser(recipe: str = DEFAULT_RECIPE) -> OneLineParser:
    """Return the parser, with the recipe's values as defaults."""
    parser = OneLineParser(
        prog="infer.py",
        description="Writes each video again with background music that fits it.",
        epilog=EXIT_CODES,
        print_config=None,  # its own would name videos, and a configuration has none
        default_config_files=[str(recipe_path(recipe))],
    )
    add = parser.add_argument
    add("videos", nargs="*", default=[], type=str, help="videos, or folders of videos")
    add("-o", "--out", type=str, default=None, help="file to write, or a folder; default: beside the video")
    add("--recipe", type=str, default=recipe, help="a name from configs/infer, or a YAML file")
    add("--config", action="config", help="a YAML file with any of these values")
    add("--print-config", action="store_true", help="print every value as YAML, and end")
    add("--reference", action="append", help="sound to follow in style; given twice: the voice, and the rest")
    add("--melody", type=str, default=None, help="sound whose tune the music is to follow")
    add("--inpaint", type=str, default=None, help="a:b or a-b, seconds of the video whose music is written anew")
    source = "with --inpaint: the music to keep; default: the output itself"
    add("--inpaint-source", type=str, default=None, help=source)
    add("--lyrics", type=str, default=None, help="a text file of words to sing, each section under [verse] or the like")
    add("--low-memory", action="store_true", help="smaller models and batches, where the recipe has them")
    add("--wav", action="store_true", help="also write the music by itself, before it is mixed and mastered")
    add("--stems", action="store_true", help="also write the parts of the music as WAV files")
    add("--midi", action="store_true", help="also write the score as a Standard MIDI File")
    add("--markers", nargs="?", const="edl", choices=["edl", "otio"], help="also write sections and hits for an editor")
    add("--report", action="store_true", help="also draw thumbnails, waveform, cuts, beats, sections and loudness")
    c2pa = "sign the video with a C2PA manifest, by a certificate and its private key (PEM files)"
    add("--c2pa", nargs=2, default=None, type=str, metavar=("CERT", "KEY"), help=c2pa)
    add("--overwrite", action="store_true", help="replace files that exist")
    add_engine_arguments(parser)
    add("--processes", type=int | None, default=None, help="with --engine ray: videos side by side; default: as fit")
    add("--quiet", action="store_true", help="show no progress")
    add("--debug", action="store_true", help="show where an error came from")
    add_recipe_arguments(parser)
    return parser


def parse(argv: Sequence[str]) -> Arguments:
    """Parse a command. Raise UsageError for an invalid one, SystemExit after `--print-config`."""
    words = [f"./{word}" if word.startswith("-") and Path(word).is_file() else word for word in argv]
    recipe_name = _find_recipe(words)
    parser = build_parser(recipe_name)
    try:
        config = parser.parse_args(words)
    except UnicodeDecodeError as error:
        raise UsageError(f"a configuration or recipe is not UTF-8 text: {error}") from None
    if config.recipe != recipe_name:
        raise UsageError(f"recipe {config.recipe!r} in a configuration has no effect: give --recipe {config.recipe}")
    _read_lyrics(config)
    if config.low_memory:
        parts = [part for part in (config.tagger, config.generator) if "low_memory" in part.get("init_args", {})]
        if not parts:
            raise UsageError(f"recipe {config.recipe!r} has nothing to lower: leave out --low-memory")
        for part in parts:
            part.init_args.low_memory = True
    choices = config.clone(with_meta=False)
    for key in ("videos", "out", "overwrite", "quiet", "debug", "config", "print_config", "recipe", "lyrics", "c2pa"):
        choices.pop(key, None)
    for key in ("engine", "address", "processes", "worker_gpus"):  # which the music does not depend on
        choices.pop(key)
    if config.print_config:
        sys.stdout.write(parser.dump(choices, skip_validation=True))
        raise SystemExit(errors.OK)
    if not config.videos:
        raise UsageError("name one or more videos, or folders of videos (see --help)")
    recipe = build_recipe(recipe_name, parser, config)
    controls = _build_controls(config)
    source = controls.inpaint.source_path if controls.inpaint else None
    credentials = _read_credentials(config.c2pa)
    settings = {
        **to_plain(choices),
        "reference_sha256": [sha256_file(path) for path in controls.reference],
        "melody_sha256": sha256_file(controls.melody) if controls.melody else None,
        "inpaint_source_sha256": sha256_file(source) if source else None,
        "c2pa_certificate_sha256": credentials.sha256() if credentials else None,
    }
    extras = Extras(config.stems, config.midi, config.markers, config.report, config.wav)
    videos, out = tuple(config.videos), config.out or None
    recipe = replace(recipe, settings=settings)
    engine = build_engine(config)
    return Arguments(
        videos, out, config.overwrite, config.quiet, config.debug, recipe, controls, extras, credentials, engine
    )


def _find_recipe(argv: Sequence[str]) -> str:
    """Return the recipe, which sets the defaults of the other flags and so must be known first."""
    for position, word in enumerate(argv):
        if word == "--recipe" and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith("--recipe="):
            return word.partition("=")[2]
    return DEFAULT_RECIPE


def _read_lyrics(config: Namespace) -> None:
    """Put the words, not the file's name, into the settings: an output is stale when they change."""
    if config.lyrics is None:
        return
    if config.tags.lyrics:
        raise UsageError("give the words with --lyrics or with --tags.lyrics, not both")
    try:
        config.tags.lyrics = Path(config.lyrics).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{config.lyrics!r} is not UTF-8 text: {error}") from None
    if not config.tags.lyrics.strip():
        raise UsageError(f"{config.lyrics!r} holds no words")
    config.tags.vocals = True


def _read_credentials(files: Sequence[str] | None) -> C2paCredentials | None:
    if files is None:
        return None
    for name in files:
        if not Path(name).is_file():
            raise UsageError(f"c2pa {name!r}: {'is no file' if Path(name).exists() else 'no such file'}")
    credentials = C2paCredentials(*map(Path, files))
    credentials.validate()  # once, before the first of many videos
    return credentials


def _build_controls(config: Namespace) -> Controls:
    reference, melody = config.reference or [], config.melody
    if len(reference) > 2:
        raise UsageError(f"--reference takes one sound file, or two (the voice, and the rest), not {len(reference)}")
    for kind, names in (("reference", reference), ("melody", [melody]), ("inpaint-source", [config.inpaint_source])):
        for name in names:
            if name is not None and not Path(name).is_file():
                raise UsageError(f"{kind} {name!r}: no such file")
    inpaint = _build_inpaint_request(config.inpaint, config.inpaint_source)
    return Controls(tuple(map(Path, reference)), None if melody is None else Path(melody), inpaint)


def _build_inpaint_request(seconds: str | None, source: str | None) -> InpaintRequest | None:
    if seconds is None and source is not None:
        raise UsageError("--inpaint-source is the music to keep: say with --inpaint a:b which seconds to write anew")
    if seconds is None:
        return None
    start, _, end = seconds.partition("-" if "-" in seconds else ":")
    try:
        request = InpaintRequest(parse_seconds(start), parse_seconds(end), None if source is None else Path(source))
    except ValueError:
        request = None
    if request is None or not 0 <= request.start < request.end < math.inf:
        raise UsageError(f"--inpaint {seconds!r}: give two rising seconds of the video, such as 8:12.5 or 0:08-0:12.5")
    return request


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it speaks of its caches
    reuse_freed_memory()
    return run_command(_run, argv, name="infer.py", flags=FLAGS)


def _run(argv: Sequence[str]) -> str | int:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been deleted: change to another one") from None
    request = parse(argv)
    if any(map(is_address, (*request.videos, request.out or ""))):
        return _run_remote(request)
    out, (first, *more) = None if request.out is None else Path(request.out), map(Path, request.videos)
    if more or batch.is_folder(first):
        paths = batch.find_videos([first, *more])
        results = batch.process_videos(paths, out, request.recipe, request.overwrite, **_batch_options(request))
        return _run_batch(request, paths, results)
    if request.engine is not None:
        raise UsageError("one video is scored in this process: leave out `engine`, or name a folder or several videos")
    result = batch.score_one(
        first, out, recipe=request.recipe, controls=request.controls, extras=request.extras, c2pa=request.c2pa,
        overwrite=request.overwrite, stages=progress.no_progress if request.quiet else progress.tqdm_progress,
    )  # fmt: skip
    for warning in result.metadata.warnings:
        sys.stderr.write(f"warning: {with_flags(warning, FLAGS)}\n")
    return _summary(result)


def _summary(result: ScoreResult) -> str:
    out, record = result.path, result.record
    path = min(os.path.relpath(out), str(out), key=len)
    duration = record["range"]["end"] - record["range"]["start"]
    facts = [f"{duration:.{1 if duration >= 0.1 else 2}f} s of music"]
    if record["mix"]["range_loudness"] is not None:
        facts.append(f"{record['mix']['range_loudness']:.1f} LUFS")
    if alignment := record["alignment"]:
        hits, chance = (alignment[key] * alignment["n"] for key in ("hits", "chance"))
        facts.append(f"{round(hits)} of {alignment['n']} cuts met ({chance:.1f} by chance)")
    facts.append(f"in {sum(result.metadata.stage_seconds.values()):.1f} s")
    return f"wrote {printable(path)} and {printable(out.with_suffix('.json').name)}: {', '.join(facts)}"


def _batch_options(request: Arguments) -> dict[str, Any]:
    return {
        "engine": request.engine,
        "controls": request.controls,
        "extras": request.extras,
        "c2pa": request.c2pa,
    }


def _run_remote(request: Arguments) -> int:
    from v2m.pipeline import remote_batch

    videos = remote_batch.find_videos(request.videos)
    options = _batch_options(request)
    results = remote_batch.process_videos(videos, request.out, request.recipe, request.overwrite, **options)
    return _run_batch(request, [*map(remote_batch.result_path, videos)], results)


def _run_batch(request: Arguments, paths: Sequence[Path], results: Iterator[batch.VideoResult]) -> int:
    from tqdm import tqdm

    rows: list[batch.VideoResult] = []
    try:
        for row in tqdm(results, total=len(paths), desc="videos", unit="video", disable=request.quiet or None):
            rows.append(row._replace(detail=with_flags(row.detail, FLAGS, row.code)))
            if request.debug:
                sys.stderr.write(row.trace)
            exit_if_terminated()
    finally:
        if rows:
            by_path = {row.path: row for row in rows}
            rows = [by_path.get(path, batch.VideoResult(path, "not done")) for path in paths]
            sys.stdout.write(batch.format_table(rows) + "\n")
    codes = {row.code for row in rows}
    if errors.DISK in codes:
        return errors.DISK
    return errors.BATCH if codes != {errors.OK} else errors.OK
