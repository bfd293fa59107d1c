"""Checkpoints of audiocraft and VidMuse: exported packages, and `checkpoint.th` of training.

A training checkpoint holds its settings as omegaconf's containers. They are read by name into plain stand-ins, so that
neither omegaconf's code nor its resolvers run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from v2m.core.errors import DependencyError, error_text, prefix_errors
from v2m.mappings.vidmuse import is_vidmuse
from v2m.pretrained.safe_load import read_pickle

TRAINING_FILE, TRAINING_SUFFIX = "checkpoint.th", ".th"  # checkpoint_5.th: that of epoch 5
MAX_DEPTH = 32  # of nested settings; a file may hold a circle


class _Node:
    """Stand-in for a container or value of omegaconf: its attributes alone."""


_NODES = [
    *("base.ContainerMetadata", "base.Metadata", "dictconfig.DictConfig", "listconfig.ListConfig"),
    *(f"nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean")),
]
SETTINGS_GLOBALS = [(_Node, f"omegaconf.{name}") for name in _NODES] + [(_Node, "typing.Any")]


def read_package(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and weights of either kind of file.

    Of a training checkpoint these are the weights that the project's own export takes: the best, or VidMuse's last.
    Raises DependencyError for another file; where it holds more code than settings, with the line that exports it.
    """
    try:
        package = read_pickle(path, SETTINGS_GLOBALS)
    except DependencyError as error:
        raise DependencyError(f"{error}{_export_hint(path)}") from error
    state, settings = package.get("best_state"), package.get("xp.cfg")
    if "history" in package or "xp.sig" in package:
        saved = package.get("fsdp_best_state") or state
        state = saved.get("model") if isinstance(saved, Mapping) else None
        if isinstance(state, Mapping) and is_vidmuse(map(str, state)):
            state = package.get("model")  # VidMuse exports its last weights
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no weights as audiocraft exports them (no best_state)")
    try:
        with prefix_errors(path):
            settings = yaml.safe_load(settings) if isinstance(settings, str) else plain_values(settings)
    except yaml.YAMLError as error:
        raise DependencyError(f"{str(path)!r} has settings that are not YAML ({error_text(error)})") from error
    if not isinstance(settings, Mapping):
        raise DependencyError(f"{str(path)!r} holds no settings as audiocraft exports them (no xp.cfg)")
    return dict(settings), dict(state)


def plain_values(node: Any, depth: int = 0) -> Any:
    """Return plain values of omegaconf's; references to other settings stay as they are written."""
    if depth > MAX_DEPTH:
        raise DependencyError("the settings in it (xp.cfg) contain themselves: fetch it again")
    if isinstance(node, _Node):
        attributes = vars(node)
        node = attributes.get("_content", attributes.get("_val"))
    if isinstance(node, Mapping):
        return {str(key): plain_values(value, depth + 1) for key, value in node.items()}
    return [plain_values(value, depth + 1) for value in node] if isinstance(node, list | tuple) else node


def _export_hint(path: Path) -> str:
    """Return the line that exports a training checkpoint, for an error about it."""
    if path.suffix != TRAINING_SUFFIX:
        return ""
    code = f"from audiocraft.utils import export; export.export_lm({str(path)!r}, 'exported/state_dict.bin')"
    return f"; if you trust it, export it where audiocraft is installed: python -c {shlex.quote(code)}"
