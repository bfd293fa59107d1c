"""Status of each recipe: whether its weights are on this machine, and its capabilities."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from v2m.generators.sketch import Sketch

PATIENCE = 120.0  # seconds for one recipe
ALWAYS = "sketch"


@dataclass(frozen=True)
class Looked:
    """lack: what a recipe lacks, in one line; None where nothing. steers: what its generator can do."""

    lack: str | None = None
    steers: frozenset[str] = frozenset()


READY = Looked(None, Sketch.capabilities)  # the recipe that needs nothing


def look_at(recipe: str) -> Looked:
    """Asks nothing of any network.

    It is found out in a process of its own, which takes along what its libraries hold in memory.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_look, args=(recipe, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(PATIENCE) else Looked("it could not be looked at in time")
    except EOFError:
        return Looked("it cannot be looked at on this machine")
    finally:
        process.kill()
        process.join()


def look_at_all() -> Iterator[tuple[str, Looked]]:
    """Each shipped recipe and what was found."""
    from v2m.pipeline.recipes import list_recipes

    for recipe in list_recipes():
        yield recipe, READY if recipe == ALWAYS else look_at(recipe)


def _look(recipe: str, pipe: Connection) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    if hasattr(os, "nice"):
        os.nice(19)  # whoever is at work comes first
    from v2m.core import errors
    from v2m.core.types import Controls, Tags
    from v2m.generators.base import as_generator
    from v2m.pipeline.recipes import load_recipe
    from v2m.taggers.base import as_tagger

    try:
        loaded = load_recipe(recipe)
        generator = as_generator(loaded.generator)
        as_tagger(loaded.tagger).prepare()
        generator.prepare(Tags(), Controls())
        pipe.send(Looked(None, generator.capabilities))
    except errors.DependencyError as error:
        repository = error.repository
        cure = f"fetch the weights with `hf download {repository}`" if repository else errors.format_error(error)
        pipe.send(Looked(cure))
    except Exception as error:
        pipe.send(Looked(errors.format_error(error)))
