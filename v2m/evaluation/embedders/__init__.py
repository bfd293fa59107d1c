"""Models by which music is measured, each made by its name or by the path of its class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from v2m.core import extras
from v2m.core.errors import DependencyError, UsageError
from v2m.evaluation.embedder import Embedder

EMBEDDERS = {
    "clap": "v2m.evaluation.embedders.clap.ClapEmbedder",
    "ast": "v2m.evaluation.embedders.ast.AstEmbedder",
    "pe-av": "v2m.evaluation.embedders.pe_av.PeAvEmbedder",
    "vggish": "v2m.evaluation.embedders.vggish.VggishEmbedder",
    "imagebind": "v2m.evaluation.embedders.imagebind.ImageBindEmbedder",
}


def build_embedders(specs: Sequence[str]) -> list[Embedder]:
    """Those asked for, each ready to be loaded: `clap`, `clap=REPOSITORY_OR_FOLDER`, `my.module.MyEmbedding`.

    Raises:
        UsageError: There is none of that name, its class has not what is needed, or two have one name.
        DependencyError: The package or the weights are not on this machine and cannot be fetched.
    """
    made = [_build_embedder(each) for each in dict.fromkeys(specs)]
    names = [each.name for each in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two embeddings are named {', '.join(twice)}: give them other names, or one of them")
    for each in made:
        if prepare := getattr(each, "prepare", None):
            prepare()
    return made


def _build_embedder(spec: str) -> Embedder:
    word, _, source = spec.partition("=")
    kind: Any = _import_class(EMBEDDERS.get(word, word), spec)
    try:
        made = kind(source) if source else kind()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--embedding {spec}: it cannot be made so ({error})") from error
    if not isinstance(made, Embedder):
        raise UsageError(f"--embedding {spec}: {kind.__name__} must have a name and a method embed_audio(audio)")
    return made


def _import_class(path: str, spec: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise UsageError(
            f"--embedding {spec}: give {', '.join(EMBEDDERS)}, each alone or with =WEIGHTS, or the path of a class"
        )
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        if extras.cure(error):
            raise
        if error.name and not module.startswith(error.name):
            raise DependencyError(f"--embedding {spec} needs the package {error.name}: install it") from error
        raise UsageError(f"--embedding {spec}: there is no module {module!r}") from error
    if not isinstance(found, type):
        raise UsageError(f"--embedding {spec}: {module!r} has no class {name!r}")
    return found
