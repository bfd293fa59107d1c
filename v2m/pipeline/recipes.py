"""Recipes: YAML files that name a tagger, a generator and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

import v2m
from v2m.core.arguments import OneLineParser, flatten_message, to_plain
from v2m.core.errors import UsageError
from v2m.core.protocols import MusicGenerator, Tagger
from v2m.core.types import Tags
from v2m.media.video import Limits
from v2m.mixing.mixer import MixConfig

DEFAULT_RECIPE = "sketch"


@dataclass(frozen=True)
class Recipe:
    """The objects of a recipe. settings: the plain values from which they were built."""

    name: str
    tagger: Tagger
    generator: MusicGenerator
    tags: Tags
    mix: MixConfig
    limits: Limits
    seed: int
    candidates: int
    align_to_cuts: bool
    start: float | None
    end: float | None
    settings: Mapping[str, Any]


def list_recipes() -> dict[str, Path]:
    """The shipped recipes by name."""
    package = Path(v2m.__file__).parent
    folder = next(path for path in (package / "configs", package.parent / "configs") if path.is_dir()) / "infer"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(name: str) -> Path:
    """The file of a recipe that is given by name or as a path.

    Raises:
        UsageError: There is no such recipe.
    """
    shipped = list_recipes()
    if name in shipped:
        return shipped[name]
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    raise UsageError(f"unknown recipe {name!r}: give one of {', '.join(shipped)}, or the path of a YAML file")


def add_recipe_arguments(parser: ArgumentParser) -> None:
    """Add every option that a recipe may set."""
    add = parser.add_argument
    add("--seed", type=int, default=0, help="the same seed gives the same music")
    add("--candidates", type=int, default=1, help="soundtracks to write: the best is used, the others kept as WAV")
    add("--align-to-cuts", type=bool, default=True, help="move music whose beats are not planned onto the cuts")
    add("--start", type=float | None, default=None, help="second of the video where the music begins")
    add("--end", type=float | None, default=None, help="second of the video where the music ends")
    parser.add_subclass_arguments(Tagger, "tagger", required=True)
    parser.add_subclass_arguments(MusicGenerator, "generator", required=True)
    parser.add_class_arguments(Tags, "tags")
    parser.add_class_arguments(MixConfig, "mix", skip={"start", "end"})
    parser.add_class_arguments(Limits, "limits")


def instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    """The objects of a parsed configuration.

    Raises:
        UsageError: A value is out of range, in one line.
    """
    try:
        return parser.instantiate(config)
    except (ValueError, TypeError) as error:
        raise UsageError(flatten_message(str(error))) from error


def load_recipe(name: str = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe `name` (a shipped one or a YAML file) with its objects built; no weights are loaded yet.

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
        config[key] = value
    config = parser.parse_object(config.clone(with_meta=False), defaults=False)
    objects = instantiate(parser, config)
    values = {key: objects[key] for key in Recipe.__annotations__ if key not in {"name", "settings"}}
    return Recipe(name=name, settings=to_plain(config.clone(with_meta=False)), **values)
