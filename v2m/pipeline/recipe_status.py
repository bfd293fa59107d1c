"""Status of each recipe: whether its weights are on this machine, and its capabilities."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

from v2m.generators.sketch import Sketch
from v2m.pipeline.job_runner import start_process
from v2m.pipeline.recipes import DEFAULT_RECIPE, list_recipes

TIMEOUT_S = 120.0  # for one recipe
POLL_S = 0.2


@dataclass(frozen=True)
class RecipeStatus:
    """missing: what a recipe lacks, in one line; None where nothing. capabilities: those of its generator."""

    missing: str | None = None
    capabilities: frozenset[str] = frozenset()


READY = RecipeStatus(None, Sketch.capabilities)  # the default recipe needs nothing


def check_recipe(recipe: str, poll: Callable[[], None] = lambda: None) -> RecipeStatus:
    """Check a recipe without network, in a process that takes along what its libraries hold in memory.

    `poll` is called again and again; what it raises ends the check.
    """
    process, connection = start_process(_send_status, recipe)
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not connection.poll(POLL_S):
            poll()
            if time.monotonic() > deadline:
                return RecipeStatus("it could not be checked in time")
        return connection.recv()
    except EOFError:
        return RecipeStatus("it cannot be checked on this machine")
    finally:
        process.kill()
        process.join()


def check_all_recipes() -> Iterator[tuple[str, RecipeStatus]]:
    """Yield each shipped recipe and its status."""
    for recipe in list_recipes():
        yield recipe, READY if recipe == DEFAULT_RECIPE else check_recipe(recipe)


def _send_status(connection: Connection, recipe: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    if hasattr(os, "nice"):
        os.nice(19)  # jobs come first
    from v2m.core import errors
    from v2m.core.types import Controls, Tags
    from v2m.generators.base import as_generator
    from v2m.pipeline.recipes import load_recipe
    from v2m.taggers.base import as_tagger

    try:
        loaded = load_recipe(recipe)
        assert loaded.generator is not None
        assert loaded.tagger is not None, "every shipped recipe names both"
        generator = as_generator(loaded.generator)
        as_tagger(loaded.tagger).prepare()
        generator.prepare(Tags(), Controls())
        connection.send(RecipeStatus(None, generator.capabilities))
    except Exception as error:
        repository = error.repository if isinstance(error, errors.DependencyError) else None
        cure = f"fetch the weights with `hf download {repository}`" if repository else errors.format_error(error)
        connection.send(RecipeStatus(cure))
