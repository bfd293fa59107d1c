"""Files of v2m checkpoint folders: weights, config, components, model card (README.md)."""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from v2m.checkpoints.components import COMPONENT_KINDS, Component
from v2m.models.music_model import MusicConfig

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.yaml", "model.safetensors", "README.md"
OWN_FILES = {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, *COMPONENT_KINDS}


def is_v2m_checkpoint(names: set[str]) -> bool:
    """Return whether a folder with files of these names is a v2m checkpoint and holds nothing else."""
    return CONFIG_FILE in names and names <= OWN_FILES


def write_weights(path: Path, state: Mapping[str, Tensor], **metadata: str) -> None:
    """Write a safetensors file as transformers reads it; tensors that share memory are cloned."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    uses = Counter(value.untyped_storage().data_ptr() for value in tensors.values())
    for name, value in tensors.items():
        if uses[value.untyped_storage().data_ptr()] > 1:
            tensors[name] = value.clone()
    save_file(tensors, path, metadata={"format": "pt", **metadata})
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, in place: they are written in random order."""
    with path.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        metadata = dict(sorted(header.pop("__metadata__").items()))
        text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size, "safetensors writes compact JSON"
        file.seek(8)
        file.write(text.ljust(size))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `config.yaml`, in the order of `settings`."""
    text = yaml.safe_dump({"format": FORMAT_VERSION, **settings}, sort_keys=False, allow_unicode=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def write_component(folder: Path, component: Component, names: tuple[str, ...]) -> None:
    """Write a component as transformers' `save_pretrained` does, with its files out of `names`."""
    folder.mkdir()
    config, state = component.load()
    write_json(folder / "config.json", config)
    if state:
        write_weights(folder / WEIGHTS_FILE, state)
    copy_files(component, folder, names)


def copy_files(component: Component, folder: Path, names: tuple[str, ...]) -> None:
    """Copy those of the files `names` that exist beside a component."""
    for name in names:
        if component.folder is not None and (component.folder / name).is_file():
            shutil.copyfile(component.folder / name, folder / name)


def render_model_card(
    config: MusicConfig,
    parameters: int,
    components: Mapping[str, Component],
    *,
    sample_rate: int,
    license: str | None,
    origin: str | None,
) -> str:
    """Return Markdown with the front matter of the hub: license, origin, sizes, usage."""
    lm = config.lm
    front = {"license": license, "library_name": "v2m", "tags": ["v2m", "music", "video-to-music"]}
    front_matter = yaml.safe_dump({key: value for key, value in front.items() if value}, sort_keys=False).strip()
    inputs = {
        "text": config.text_dim,
        "a melody": config.num_chroma,
        "style": config.style,
        "video": config.conditioner,
    }
    conditions = [name for name, value in inputs.items() if value is not None]
    stereo = ", left and right in turn" if lm.channels == 2 else ""
    rows = {
        "parameters": f"{parameters:,}",
        "layers, dimension, heads": f"{lm.num_layers}, {lm.dim}, {lm.num_heads}",
        "codebooks": f"{lm.num_codebooks} of {lm.codebook_size} codes{stereo}",
        "sample rate": f"{sample_rate} Hz",
        "trained on": f"{config.segment_duration:g} s at a time",
        "conditioned on": " and ".join(conditions) or "nothing",
    }
    for kind, component in components.items():
        rows[kind.replace("_", " ")] = component.name or f"in the folder `{kind}`"
    recipe = "musicgen" if config.conditioner is None else "vidmuse"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{front_matter}
---

# A music model for v2m

Origin: {origin or "not stated"}. License of the weights: {license or "not stated"}.

| | |
|---|---|
{table}

With FOLDER for this folder, or for its repository on the hub:

```
uv run infer.py clip.mp4 --recipe {recipe} --generator.model FOLDER
uv run v2m convert FOLDER NEW_FOLDER --to transformers
```
"""
