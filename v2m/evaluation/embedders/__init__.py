"""Models by which music is measured, each made by its name or by the path of its class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from v2m.core.errors import DependencyError, UsageError
from v2m.evaluation.embedder import Embedding

KNOWN = {
    "clap": "v2m.evaluation.embedders.clap.Clap",
    "ast": "v2m.evaluation.embedders.ast.Ast",
    "pe-av": "v2m.evaluation.embedders.pe_av.PeAv",
    "vggish": "v2m.evaluation.embedders.vggish.Vggish",
    "imagebind": "v2m.evaluation.embedders.imagebind.ImageBind",
}


def find(asked: Sequence[str]) -> list[Embedding]:
    """Those asked for, each ready to be loaded: `clap`, `clap=REPOSITORY_OR_FOLDER`, `my.module.MyEmbedding`.

    Raises:
        UsageError: There is none of that name, its class has not what is needed, or two have one name.
        MissingError: The package or the weights are not on this machine and cannot be fetched.
    """
    made = [_made(each) for each in dict.fromkeys(asked)]
    names = [each.name for each in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two embeddings are named {', '.join(twice)}: give them other names, or one of them")
    for each in made:
        if prepare := getattr(each, "prepare", None):
            prepare()
    return made


def _made(asked: str) -> Embedding:
    word, _, source = asked.partition("=")
    kind: Any = _class(KNOWN.get(word, word), asked)
    try:
        made = kind(source) if source else kind()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--embedding {asked}: it cannot be made so ({error})") from error
    if not isinstance(made, Embedding):
        raise UsageError(f"--embedding {asked}: {kind.__name__} must have a name and a method hear(audio)")
    return made


def _class(path: str, asked: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise UsageError(
            f"--embedding {asked}: give {', '.join(KNOWN)}, each alone or with =WEIGHTS, or the path of a class"
        )
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        if error.name and not module.startswith(error.name):
            raise DependencyError(f"--embedding {asked} needs the package {error.name}: install it") from error
        raise UsageError(f"--embedding {asked}: there is no module {module!r}") from error
    if not isinstance(found, type):
        raise UsageError(f"--embedding {asked}: {module!r} has no class {name!r}")
    return found
