"""Checkpoint files, opened so that a wrong or hostile one gives one line and runs nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from v2m.errors import MissingError


def state_dict(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's `model.safetensors`, or of the shards that `model.safetensors.index.json` lists.

    Raises:
        MissingError: A file is missing, truncated or not a safetensors file; it is named.
    """
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def pickled(path: Path) -> dict[str, Any]:
    """The contents of a PyTorch pickle, which may hold tensors and plain values only.

    Raises:
        MissingError: The file is missing, truncated, or holds code (which is not run).
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MissingError(f"{str(path)!r} holds more than tensors and is refused: {error}") from error
