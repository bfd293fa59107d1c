"""A checkpoint folder of our own, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
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
    """Makes `folder` by letting `fill` write into a temporary one beside it.

    Args:
        folder: New or empty.
        fill: Writes the files.
        replace: A checkpoint of our own may be there, and is replaced.

    Raises:
        UsageError: Something else is there; it stays as it is.
    """
    _check_target(folder, replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}" for _ in range(2))
    temporary.mkdir()
    try:
        writer(temporary)
        _check_target(folder, replace)  # it took a while
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
    """A safetensors file as transformers reads it."""
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    places = [value.untyped_storage().data_ptr() for value in plain.values()]
    shared = {place for place in places if places.count(place) > 1} if len(set(places)) < len(places) else set()
    plain = {name: v.clone() if v.untyped_storage().data_ptr() in shared else v for name, v in plain.items()}
    save_file(plain, path, metadata={"format": "pt", **metadata})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """`config.yaml`, in the order given."""
    text = yaml.safe_dump({"format": FORMAT_VERSION, **settings}, sort_keys=False, allow_unicode=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def write_component(folder: Path, component: Component, names: tuple[str, ...]) -> None:
    """A part that its source carried, as transformers' `save_pretrained` would leave it, with its files of `names`."""
    folder.mkdir()
    config, state = component.load()
    write_json(folder / "config.json", config)
    write_weights(folder / WEIGHTS_FILE, state)
    copy_files(component, folder, names)


def copy_files(component: Component, folder: Path, names: tuple[str, ...]) -> None:
    """Those of the files that lie beside a part."""
    for name in names:
        if component.folder is not None and (component.folder / name).is_file():
            shutil.copyfile(component.folder / name, folder / name)


def _check_target(folder: Path, replace: bool) -> None:
    if folder.is_file() or (folder.is_symlink() and not folder.exists()):
        raise UsageError(f"{str(folder)!r} is a file: give a new folder")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and not (replace and CONFIG_FILE in there and there <= OWN_FILES):
        raise UsageError(f"{str(folder)!r} holds something already ({min(there)}): give a new folder")
