"""Arguments of a scoring command: flags to what `score_video` takes."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from v2m.core import errors
from v2m.core.arguments import OneLineParser, to_plain
from v2m.core.errors import UsageError
from v2m.core.types import Controls, InpaintRequest

EXIT_CODES = """exit codes: 0 done, 1 a bug, 2 wrong usage, 3 input refused, 4 something missing on this machine,
5 out of memory, 6 disk full or not writable, 7 some videos of a batch failed, 130 interrupted,
141 nobody reads the output any more, 143 terminated"""


@dataclass(frozen=True)
class Arguments:
    """A parsed command: the videos, where to write, and what `score_video` gets."""

    videos: tuple[Path, ...]
    out: Path | None
    overwrite: bool
    quiet: bool
    debug: bool
    recipe: str
    settings: dict[str, Any]  # every value that the output depends on
    arguments: dict[str, Any]


def build_parser(recipe: str = "sketch") -> ArgumentParser:
    """The parser, with the recipe's values as defaults."""
    from v2m.pipeline.recipes import add_recipe_arguments, recipe_path

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
    add("--inpaint", type=str, default=None, help="a:b, seconds of the video whose music is written anew")
    add(
        "--inpaint-source", type=str, default=None, help="with --inpaint: the music to keep; default: the output itself"
    )
    add("--lyrics", type=str, default=None, help="a text file of words to sing, each section under [verse] or the like")
    add("--low-memory", action="store_true", help="smaller models and batches, where the recipe has them")
    add("--wav", action="store_true", help="also write the music by itself, before it is mixed and mastered")
    add("--stems", action="store_true", help="also write the parts of the music as WAV files")
    add("--midi", action="store_true", help="also write the score as a Standard MIDI File")
    add("--markers", nargs="?", const="edl", choices=["edl", "otio"], help="also write sections and hits for an editor")
    add("--report", action="store_true", help="also draw thumbnails, waveform, cuts, beats, sections and loudness")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--quiet", action="store_true", help="show no progress")
    add("--debug", action="store_true", help="show where an error came from")
    add_recipe_arguments(parser)
    return parser


def parse(argv: Sequence[str]) -> Arguments:
    """Raises UsageError for a command that cannot be; SystemExit after `--print-config`."""
    from v2m.pipeline.recipes import instantiate
    from v2m.pipeline.result import Extras
    from v2m.pipeline.sidecar import sha256_file

    named = [f"./{word}" if word.startswith("-") and Path(word).is_file() else word for word in argv]
    recipe = _recipe_of(named)
    parser = build_parser(recipe)
    try:
        config = parser.parse_args(named)
    except UnicodeDecodeError as error:
        raise UsageError(f"a configuration or recipe is not UTF-8 text: {error}") from None
    if config.recipe != recipe:
        raise UsageError(f"recipe {config.recipe!r} in a configuration has no effect: give --recipe {config.recipe}")
    _read_lyrics(config)
    if config.low_memory:
        _apply_low_memory(config)
    choices = config.clone(with_meta=False)
    for key in ("videos", "out", "overwrite", "quiet", "debug", "config", "print_config", "recipe", "lyrics"):
        choices.pop(key, None)
    if config.print_config:
        sys.stdout.write(parser.dump(choices, skip_validation=True))
        raise SystemExit(errors.OK)
    if not config.videos:
        raise UsageError("name one or more videos, or folders of videos (see --help)")
    made = instantiate(parser, config)
    extras = Extras(made.stems, made.midi, made.markers, made.report, made.wav)
    keys = ("tagger", "generator", "tags", "mix", "limits", "seed", "candidates", "align_to_cuts", "start", "end")
    controls = _controls(made.reference or [], made.melody, _inpaint_request(made.inpaint, made.inpaint_source))
    arguments = {"extras": extras, "controls": controls, **{key: made[key] for key in keys}}
    out = Path(made.out) if made.out else None
    videos, settings = tuple(map(Path, made.videos)), to_plain(choices)
    settings["reference_sha256"] = [sha256_file(path) for path in controls.reference]
    settings["melody_sha256"] = sha256_file(controls.melody) if controls.melody else None
    settings["inpaint_source_sha256"] = sha256_file(Path(made.inpaint_source)) if made.inpaint_source else None
    return Arguments(videos, out, made.overwrite, made.quiet, made.debug, recipe, settings, arguments)


def _recipe_of(argv: Sequence[str]) -> str:
    """The recipe must be known before the other flags can be read, for it sets their defaults."""
    for place, word in enumerate(argv):
        if word == "--recipe" and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith("--recipe="):
            return word.partition("=")[2]
    return "sketch"


def _read_lyrics(config: Namespace) -> None:
    """The words stand in the settings, not the file's name: an output is stale when they change."""
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


def _apply_low_memory(config: Namespace) -> None:
    """Sets `low_memory` of those of tagger and generator that have it."""
    able = [part for part in (config.tagger, config.generator) if "low_memory" in part.get("init_args", {})]
    if not able:
        raise UsageError(f"recipe {config.recipe!r} has nothing to lower: leave out --low-memory")
    for part in able:
        part.init_args.low_memory = True


def _controls(reference: Sequence[str], melody: str | None, inpaint: InpaintRequest | None) -> Controls:
    if len(reference) > 2:
        raise UsageError(f"--reference takes one sound file, or two (the voice, and the rest), not {len(reference)}")
    named = [("reference", name) for name in reference] + [("melody", melody)] * (melody is not None)
    for what, name in named:
        if not Path(name or "").is_file():
            raise UsageError(f"{what} {name!r}: no such file")
    return Controls(tuple(map(Path, reference)), None if melody is None else Path(melody), inpaint)


def _inpaint_request(seconds: str | None, previous: str | None) -> InpaintRequest | None:
    if seconds is None and previous is not None:
        raise UsageError("--inpaint-source is the music to keep: say with --inpaint a:b which seconds to write anew")
    if previous is not None and not Path(previous).is_file():
        raise UsageError(f"previous {previous!r}: no such file")
    if seconds is None:
        return None
    begin, _, end = seconds.partition(":")
    try:
        asked = InpaintRequest(float(begin), float(end), None if previous is None else Path(previous))
    except ValueError:
        asked = None
    if asked is None or not 0 <= asked.start < asked.end < math.inf:
        raise UsageError(f"--inpaint {seconds!r}: give two rising seconds of the video, such as 8:12.5")
    return asked
