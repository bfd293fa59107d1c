"""Demucs models of some 240 k random parameters, in the formats of `adefossez/HTDemucs` and of the older `.th` files.

They are as published but for widths and the length of a segment: 44.1 kHz, stereo, drums, bass, other, vocals.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from demucs.htdemucs import HTDemucs
from demucs.states import save_with_checksum, serialize_model
from omegaconf import OmegaConf
from safetensors.torch import save_file

SOURCES = ("drums", "bass", "other", "vocals")
SMALL: dict[str, Any] = {
    "channels": 8, "t_layers": 2, "t_heads": 2, "bottom_channels": 16, "segment": Fraction(3, 10),
}  # fmt: skip
PUBLISHED: dict[str, Any] = {"bottom_channels": 512, "dconv_mode": 3, "segment": Fraction(39, 5)}  # 84 MB, as 955717e8


def model(seed: int = 0, sizes: dict[str, Any] = SMALL) -> HTDemucs:
    """Random, but each stem is something else; its arguments are those that a checkpoint keeps."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = HTDemucs(list(SOURCES), **sizes)
        for value in made.parameters():
            value.data = value.data.half().float()  # as stored
    return made.eval()


def write(
    folder: Path,
    *,
    seeds: tuple[int, ...] = (0,),
    weights: list[list[float]] | None = None,
    sizes: dict[str, Any] = SMALL,
) -> Path:
    """A folder as `adefossez/HTDemucs`: a YAML, and a safetensors file of each model in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        held = _packed(model(seed, sizes))
        about = {"klass": "demucs.htdemucs.HTDemucs", **{k: json.dumps(held[k], default=_plain) for k in ARGUMENTS}}
        save_file(held["state"], folder / f"{_name(seed)}.safetensors", metadata=about)
    bag = {"models": [_name(seed) for seed in seeds], **({} if weights is None else {"weights": weights})}
    (folder / f"{folder.name}.yaml").write_text(yaml.safe_dump(bag))
    return folder


def write_pickled(folder: Path, *, seed: int = 0) -> Path:
    """The file `xxxxxxxx-yyyyyyyy.th` as the package itself saves it, by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    save_with_checksum(_packed(model(seed)), folder / f"{_name(seed)}.th")
    return next(folder.glob("*.th"))


ARGUMENTS = ("args", "kwargs")


def _packed(made: HTDemucs) -> dict[str, Any]:
    return serialize_model(made, OmegaConf.create({"lr": 3e-4}))


def _plain(value: Fraction) -> dict[str, Any]:
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def _name(seed: int) -> str:
    return f"{seed:08x}"
