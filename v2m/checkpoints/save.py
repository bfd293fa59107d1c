"""Atomic writing of v2m checkpoint folders."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from v2m.checkpoints.components import COMPONENT_KINDS, Component
from v2m.core.errors import UsageError

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.yaml", "model.safetensors", "README.md"
OWN_FILES = {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, *COMPONENT_KINDS}


def atomic_directory(folder: Path, writer: Callable[[Path], None], *, replace: bool = False) -> None:
    """Create `folder` atomically: `writer` fills a temporary one beside it, which is then renamed.

    Args:
        folder: New or empty.
        writer: Writes the files into the folder that it is given.
        replace: Whether a v2m checkpoint that exists is replaced.

    Raises:
        UsageError: Something else exists there; it stays as it is.
    """
    _check_target(folder, replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}" for _ in range(2))
    temporary.mkdir()
    try:
        writer(temporary)
        _check_target(folder, replace)  # again: writing took a while
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def write_weights(path: Path, state: Mapping[str, Tensor], **metadata: str) -> None:
    """Write a safetensors file as transformers reads it; tensors that share memory are cloned."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    uses = Counter(value.untyped_storage().data_ptr() for value in tensors.values())
    for name, value in tensors.items():
        if uses[value.untyped_storage().data_ptr()] > 1:
            tensors[name] = value.clone()
    save_file(tensors, path, metadata={"format": "pt", **metadata})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `config.yaml`, in the order of `settings`."""
    text = yaml.safe_dump({"format": FORMAT_VERSION, **settings}, sort_keys=False, allow_unicode=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def write_component(folder: Path, component: Component, names: tuple[str, ...]) -> None:
    """Write a stored component in the format of transformers' `save_pretrained`, with its files of `names`."""
    folder.mkdir()
    config, state = component.load()
    write_json(folder / "config.json", config)
    write_weights(folder / WEIGHTS_FILE, state)
    copy_files(component, folder, names)


def copy_files(component: Component, folder: Path, names: tuple[str, ...]) -> None:
    """Copy those of the files `names` that exist beside a component."""
    for name in names:
        if component.folder is not None and (component.folder / name).is_file():
            shutil.copyfile(component.folder / name, folder / name)


def _check_target(folder: Path, replace: bool) -> None:
    if folder.is_file() or (folder.is_symlink() and not folder.exists()):
        raise UsageError(f"{str(folder)!r} is a file: give a new folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not (replace and CONFIG_FILE in names and names <= OWN_FILES):
        raise UsageError(f"{str(folder)!r} holds something already ({min(names)}): give a new folder")
