"""The convolutions of the Descript Audio Codec between the layout of its authors and transformers' `DacModel`.

There they are numbered and under weight norm in its old form (`weight_g`, `weight_v`), here they have names and are
plain. X-Codec and SONIQUE's autoencoder are made of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from v2m.core.errors import DependencyError

_UNIT_LAYERS = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}


def encoder_key_map(published: str, here: str, stages: int) -> dict[str, str]:
    """Published name of every module of an encoder → transformers' name.

    Args:
        published, here: What stands before the modules' own names.
        stages: How many times it shrinks the length.
    """
    names = _outer_layers(published, here, stages)
    for n in range(1, stages + 1):
        old, new = f"{published}.{n}.block", f"{here}.block.{n - 1}"
        names |= {f"{old}.3": f"{new}.snake1", f"{old}.4": f"{new}.conv1"} | _residual_units(old, new, first=0)
    return names


def decoder_key_map(published: str, here: str, stages: int) -> dict[str, str]:
    """Key map of a decoder, in the same format."""
    names = _outer_layers(published, here, stages)
    for n in range(1, stages + 1):
        old, new = f"{published}.{n}.block", f"{here}.block.{n - 1}"
        names |= {f"{old}.0": f"{new}.snake1", f"{old}.1": f"{new}.conv_t1"} | _residual_units(old, new, first=2)
    return names


def fuse_weight_norm(state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """`state` without weight norm in its old form.

    Raises:
        DependencyError: One half of it is missing; `what` and the half are told.
    """
    out = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if leaf in {"weight_g", "weight_v"}:
            other = f"{module}.{'weight_v' if leaf == 'weight_g' else 'weight_g'}"
            if other not in state:
                raise DependencyError(f"not {what}: {key!r} lacks its {other.rpartition('.')[2]}")
            if leaf == "weight_v":
                out[f"{module}.weight"] = value * (state[other] / weight_norm_g(value))
        else:
            out[key] = value
    return out


def weight_norm_g(weight: Tensor) -> Tensor:
    """The `weight_g` of a plain weight: Salimans and Kingma, "Weight Normalization", w = g · v / |v| for each index of
    the first dimension."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)


def _outer_layers(published: str, here: str, stages: int) -> dict[str, str]:
    first, snake, last = 0, stages + 1, stages + 2
    return {
        f"{published}.{first}": f"{here}.conv1",
        f"{published}.{snake}": f"{here}.snake1",
        f"{published}.{last}": f"{here}.conv2",
    }


def _residual_units(published: str, here: str, *, first: int) -> dict[str, str]:
    """The three residual units of a stage, which begin at number `first`."""
    return {
        f"{published}.{first + unit}.block.{old}": f"{here}.res_unit{unit + 1}.{new}"
        for unit in range(3)
        for old, new in _UNIT_LAYERS.items()
    }
