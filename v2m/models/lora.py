"""LoRA fine-tuning: low-rank adapters beside each matrix of the language model.

Hu et al., "LoRA" (2021), as the library peft does it: W x becomes W x + alpha / rank · B A x, where B starts at 0.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from v2m.models.music_model import MusicModel

TARGET_MODULES = ("query_key_value", "query", "key_value", "out", "expand", "contract")  # of every layer
BASE_LAYER, LORA_A, LORA_B = ".base_layer.", ".lora_A.default.", ".lora_B.default."  # in peft's names of weights


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters; the conditioner and the null tokens are trained in full beside them.

    Args:
        rank: Of the product.
        alpha: Times 1 / rank, the product's scale.
        dropout: Share of an adapter's input that is dropped in training.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        problems = [] if self.rank >= 1 else [f"rank {self.rank} must be 1 or more"]
        problems += [] if self.alpha > 0 else [f"alpha {self.alpha:g} must be more than 0"]
        problems += [] if 0 <= self.dropout < 1 else [f"dropout {self.dropout:g} must lie in 0 to 1"]
        if problems:
            raise ValueError("lora: " + "; ".join(problems))

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def is_trainable(name: str) -> bool:
    """Return whether the weight of that name is trained beside a frozen base."""
    return name.startswith(("conditioner.", "null_")) or LORA_A in name or LORA_B in name


def inject_lora(model: MusicModel, config: LoRAConfig, dtype: torch.dtype | None = None) -> None:
    """Put adapters into the LM and freeze its weights, the projections of text and melody included.

    The adapted matrices are stored in `dtype` (None: as they are). Autocast multiplies them in its type anyway, so that
    storing them in it changes no result.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it, and it warns about 4-bit kernels
    from peft import LoraConfig, inject_adapter_in_model

    kwargs: Any = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
    inject_adapter_in_model(LoraConfig(**kwargs, target_modules=list(TARGET_MODULES)), model.lm)
    for name, value in model.named_parameters():
        value.requires_grad_(is_trainable(name))
        if dtype is not None and BASE_LAYER in name:
            value.data = value.data.to(dtype)


@contextmanager
def merged_weights(model: nn.Module) -> Iterator[None]:
    """Merge the adapters into `weight` of each layer within the block; all come back bit for bit."""
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "get_delta_weight")]
    originals = [layer.weight.data for layer in layers]
    try:
        for layer in layers:
            layer.weight.data = layer.weight.data.float() + layer.get_delta_weight("default").detach()
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.weight.data = original


def merge_state(base: Mapping[str, Tensor], trainable: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return the state of a plain model that computes what the adapted one does.

    `base` is the state of the model that was adapted, `trainable` what was trained beside it (see `is_trainable`),
    `scale` `LoRAConfig.scale`. Raises KeyError where an adapted matrix is not in the base, or an adapter is incomplete.
    """
    state = {name: value for name, value in base.items() if not is_trainable(name)}
    state |= {name: value for name, value in trainable.items() if LORA_A not in name and LORA_B not in name}
    for name, a in trainable.items():
        if LORA_A in name:
            target, b = name.replace(LORA_A, "."), trainable[name.replace(LORA_A, LORA_B)]
            state[target] = base[target] + scale * (b.to(base[target]) @ a.to(base[target]))
    return state


def base_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of what stays frozen of a state: names, shapes and float32 values."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not is_trainable(name):
            digest.update(f"{name} {tuple(value.shape)} ".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()
