"""Embedders that music is evaluated with, built by name or from the path of a class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from v2m.core import errors
from v2m.core.errors import DependencyError, UsageError
from v2m.evaluation.embedders.base import BaseEmbedder, Embedder, adapt

EMBEDDERS = {
    "clap": "v2m.evaluation.embedders.clap.ClapEmbedder",
    "ast": "v2m.evaluation.embedders.ast.AstEmbedder",
    "pe-av": "v2m.evaluation.embedders.pe_av.PeAvEmbedder",
    "vggish": "v2m.evaluation.embedders.vggish.VggishEmbedder",
    "imagebind": "v2m.evaluation.embedders.imagebind.ImageBindEmbedder",
}


def build_embedders(specs: Sequence[str]) -> list[BaseEmbedder]:
    """Build embedders from `clap`, `clap=REPOSITORY_OR_FOLDER` or `my.module.MyEmbedder`.

    Raises:
        UsageError: There is none of that name, its class lacks what an embedder needs, or two have one name.
        DependencyError: The package or the weights are not on this machine and cannot be fetched.
    """
    embedders = [_build_embedder(spec) for spec in dict.fromkeys(specs)]
    names = [embedder.name for embedder in embedders]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError(f"two embeddings are named {', '.join(duplicates)}: give them other names, or one of them")
    for embedder in embedders:
        embedder.prepare()
    return embedders


def _build_embedder(spec: str) -> BaseEmbedder:
    name, _, source = spec.partition("=")
    kind: Any = _import_class(EMBEDDERS.get(name, name), spec)
    try:
        embedder = kind(source) if source else kind()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--embedding {spec}: it cannot be made so ({error})") from error
    if not isinstance(embedder, Embedder):
        raise UsageError(f"--embedding {spec}: {kind.__name__} must have a name and a method embed_audio(audio)")
    return adapt(embedder)


def _import_class(path: str, spec: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise UsageError(
            f"--embedding {spec}: give {', '.join(EMBEDDERS)}, each alone or with =WEIGHTS, or the path of a class"
        )
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        if errors.install_hint(error):
            raise
        if error.name and not module.startswith(error.name):
            raise DependencyError(f"--embedding {spec} needs the package {error.name}: install it") from error
        raise UsageError(f"--embedding {spec}: there is no module {module!r}") from error
    if not isinstance(kind, type):
        raise UsageError(f"--embedding {spec}: {module!r} has no class {name!r}")
    return kind
