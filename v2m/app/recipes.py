"""Which recipes can be used as they are: those whose weights are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection

PATIENCE = 120.0  # seconds for one recipe
ALWAYS = "sketch"


def lacking(recipe: str) -> str | None:
    """What a recipe lacks, in one line; None where nothing. Asks nothing of any network.

    It is found out in a process of its own, which takes along what its libraries hold in memory.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_look, args=(recipe, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(PATIENCE) else "it could not be looked at in time"
    except EOFError:
        return "it cannot be looked at on this machine"
    finally:
        process.kill()
        process.join()


def all_lacking() -> Iterator[tuple[str, str | None]]:
    """Each shipped recipe and what it lacks."""
    from v2m import cli

    for recipe in cli.recipes():
        yield recipe, None if recipe == ALWAYS else lacking(recipe)


def _look(recipe: str, pipe: Connection) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.nice(5)
    from v2m import cli, errors
    from v2m.types import Steering, Tags

    try:
        request = cli.parse(["clip.mp4", "--recipe", recipe])
        tagger, generator = request.arguments["tagger"], request.arguments["generator"]
        if prepare := getattr(tagger, "prepare", None):
            prepare()
        if prepare := getattr(generator, "prepare", None):
            prepare(Tags(), Steering())
        pipe.send(None)
    except errors.MissingError as error:
        repository = error.repository
        cure = f"fetch the weights with `hf download {repository}`" if repository else errors.describe(error)
        pipe.send(cure)
    except Exception as error:
        pipe.send(errors.describe(error))
