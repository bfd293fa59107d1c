"""Recipes: YAML files that name a tagger, a generator and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

import v2m
from v2m.core.arguments import OneLineParser, add_fields, flatten_message, to_plain
from v2m.core.errors import UsageError
from v2m.core.protocols import MusicGenerator, Tagger
from v2m.core.timing import Seconds
from v2m.core.types import Tags
from v2m.generators.base import GeneratorBase, as_generator
from v2m.media.video import Limits
from v2m.mixing.mixer import MixConfig
from v2m.pipeline.ranking import RankBy
from v2m.taggers.base import TaggerBase, as_tagger

DEFAULT_RECIPE = "sketch"
COMPONENTS = ("generator", "tagger")


@dataclass(frozen=True)
class Recipe:
    """A tagger, a generator, and every option that the output depends on (see `score_video`).

    Args:
        name: The shipped recipe or YAML file; None for one that was put together in Python.
        seed: The same seed gives the same music.
        candidates: Soundtracks to write: the best one is used, the others are kept as WAV.
        rank_by: Which candidate is best: sync, that follows the picture best; tags, that in which musicnn's networks
            recognize most of the genres and instruments that are asked for.
        align_to_cuts: Move music whose beats are not planned onto the cuts.
        start: Second of the video where the music begins, or 1:02.5 or 00:01:02.5.
        end: Second of the video where the music ends.
        watermark: Hide AudioSeal's watermark, which v2m can find again, in the music of the video.
        commercial_safe: Refuse models and sound banks whose license forbids commercial use, or is not known.
        settings: The plain values from which all of it was built, for the sidecar.
    """

    name: str | None = None
    tagger: Tagger | None = None
    generator: MusicGenerator | None = None
    tags: Tags = field(default_factory=Tags)
    mix: MixConfig = field(default_factory=MixConfig)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    candidates: int = 1
    rank_by: RankBy = "sync"
    align_to_cuts: bool = True
    start: Seconds | None = None
    end: Seconds | None = None
    watermark: bool = False
    commercial_safe: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> range:
        """Seeds of the candidates."""
        return range(self.seed, self.seed + self.candidates)

    @property
    def plugins(self) -> tuple[TaggerBase, GeneratorBase]:
        """Tagger and generator with their optional methods; HeuristicTagger and Sketch where none is named."""
        from v2m.generators.sketch import Sketch
        from v2m.taggers.heuristic import HeuristicTagger

        tagger = HeuristicTagger() if self.tagger is None else self.tagger
        return as_tagger(tagger), as_generator(Sketch() if self.generator is None else self.generator)

    def overridden_by(self, **values: Any) -> Recipe:
        """Return a copy with those of `values` that are not None, and `settings` that say so."""
        changes = {name: value for name, value in values.items() if value is not None}
        settings = {**self.settings, **{name: _plain(value) for name, value in changes.items()}}
        return replace(self, **changes, settings=settings)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, Tagger | MusicGenerator):
        return asdict(value)  # type: ignore[arg-type]
    if isinstance(value, int | float | str):
        return value
    return {"class_path": f"{type(value).__module__}.{type(value).__qualname__}"}


def list_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    package = Path(v2m.__file__).parent
    folder = next(path for path in (package / "configs", package.parent / "configs") if path.is_dir()) / "infer"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(name: str) -> Path:
    """Return the file of a recipe that is given by name or as a path."""
    shipped = list_recipes()
    if name in shipped:
        return shipped[name]
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    raise UsageError(f"unknown recipe {name!r}: give one of {', '.join(shipped)}, or the path of a YAML file")


def add_recipe_arguments(parser: ArgumentParser) -> None:
    """Add every option that a recipe may set."""
    add_fields(parser, Recipe, ("seed", "candidates", "rank_by", "align_to_cuts", "start", "end"))
    mark = "hide AudioSeal's watermark in the music of the video (needs the extra watermark)"
    parser.add_argument("--watermark", action=ActionYesNo(no_prefix="no-"), default=False, help=mark)
    safe = "refuse models and sound banks whose license forbids commercial use, or is not known"
    parser.add_argument("--commercial-safe", action=ActionYesNo(no_prefix="no-"), default=False, help=safe)
    parser.add_subclass_arguments(Tagger, "tagger", required=True)
    parser.add_subclass_arguments(MusicGenerator, "generator", required=True)
    parser.add_class_arguments(Tags, "tags")
    parser.add_class_arguments(MixConfig, "mix", skip={"start", "end"})
    parser.add_class_arguments(Limits, "limits")


def build_recipe(name: str, parser: ArgumentParser, config: Namespace) -> Recipe:
    """Build the objects of a parsed configuration; raise UsageError for a value out of range."""
    try:
        objects = parser.instantiate(config)
    except (ValueError, TypeError) as error:
        raise UsageError(flatten_message(str(error))) from error
    values = {key: objects[key] for key in Recipe.__annotations__ if key not in {"name", "settings"}}
    return Recipe(name=name, settings=to_plain(config.clone(with_meta=False)), **values)


def _check_override(parser: ArgumentParser, key: str, value: Any) -> None:
    """Raise UsageError for a key that is none, and for one value in the place of a group of values.

    The parser would read a text there as the name of a file.
    """
    if not all(key.split(".")) or " " in key:
        raise UsageError(f"{key!r} names no value of a recipe")
    is_group = any(action.dest.startswith(f"{key}.") for action in parser._actions) and key not in COMPONENTS
    if is_group and not isinstance(value, Mapping):
        raise UsageError(f"{key!r} is a group of values, not one: set those in it")


def load_recipe(name: str = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Build the objects of a recipe; no weights are loaded yet.

    Args:
        name: A name from `list_recipes`, or the path of a YAML file.
        overrides: Values by dotted key, such as {"tags.tempo": 90, "mix.lufs": -16}.

    Raises:
        UsageError: There is no such recipe, or a value does not fit.
    """
    parser = OneLineParser(default_config_files=[str(recipe_path(name))])
    add_recipe_arguments(parser)
    config = parser.parse_args([])
    for key, value in (overrides or {}).items():
        _check_override(parser, key, value)
        config[key] = value
    return build_recipe(name, parser, parser.parse_object(config.clone(with_meta=False), defaults=False))
