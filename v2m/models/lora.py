"""Fine-tuning with few weights: beside each matrix of the language model a product of two thin ones that learns.

Hu et al., "LoRA" (2021), as the library peft does it: W x becomes W x + alpha / rank · B A x, where B begins at 0.
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
    """Low-rank adapters; what is new (the conditioner, and what stands for nothing) learns whole beside them.

    Args:
        rank: Of the product.
        alpha: Times 1 / rank, the product's share.
        dropout: Share of an adapter's input that is dropped in training.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        problems = [f"rank {self.rank} must be 1 or more"] * (self.rank < 1)
        problems += [f"alpha {self.alpha:g} must be more than 0"] * (not self.alpha > 0)
        problems += [f"dropout {self.dropout:g} must lie in 0 to 1"] * (not 0 <= self.dropout < 1)
        if problems:
            raise ValueError("lora: " + "; ".join(problems))

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def is_trainable(name: str) -> bool:
    """Whether the weight of that name learns beside a frozen base."""
    return name.startswith(("conditioner.", "null_")) or LORA_A in name or LORA_B in name


def inject_lora(model: MusicModel, config: LoRAConfig, dtype: torch.dtype | None = None) -> None:
    """Puts adapters into the language model and freezes what was there, the projections of text and melody included.

    Args:
        model: Is changed.
        lora: Of the adapters.
        dtype: That the adapted matrices are held in; None leaves them. Under autocast they are multiplied in its type
            anyway, so that holding them in it changes no result.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it, and it tells of 4-bit kernels
    from peft import LoraConfig, inject_adapter_in_model

    given: Any = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
    inject_adapter_in_model(LoraConfig(**given, target_modules=list(TARGET_MODULES)), model.lm)
    for name, value in model.named_parameters():
        value.requires_grad_(is_trainable(name))
        if dtype is not None and BASE_LAYER in name:
            value.data = value.data.to(dtype)


@contextmanager
def merged_weights(model: nn.Module) -> Iterator[None]:
    """While the block lasts `weight` of an adapted layer is the merged matrix, for what reads weights and does not call
    layers. What was there before comes back bit for bit."""
    layers: list[Any] = [each for each in model.modules() if hasattr(each, "get_delta_weight")]
    held = [each.weight.data for each in layers]
    try:
        for each in layers:
            each.weight.data = each.weight.data.float() + each.get_delta_weight("default").detach()
        yield
    finally:
        for each, before in zip(layers, held, strict=True):
            each.weight.data = before


def trainable_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a state, what learns: adapters, conditioner, what stands for nothing."""
    return {name: value for name, value in state.items() if is_trainable(name)}


def merge_state(base: Mapping[str, Tensor], trainable: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The state of a plain model that does what the adapted one does.

    Args:
        base: The state of the model that was adapted, in its own names; of what learned whole nothing is taken.
        learned: What `own` gives.
        scale: The product's share.

    Raises:
        KeyError: A matrix that was adapted is not in the base, or an adapter is half.
    """
    found = {name: value for name, value in base.items() if not is_trainable(name)}
    found |= {name: value for name, value in trainable.items() if LORA_A not in name and LORA_B not in name}
    for name, down in trainable.items():
        if LORA_A in name:
            plain, up = name.replace(LORA_A, "."), trainable[name.replace(LORA_A, LORA_B)]
            found[plain] = base[plain] + scale * (up.to(base[plain]) @ down.to(base[plain]))
    return found


def base_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of what stays frozen in the state of a model that is to be adapted: names and float32 numbers."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not is_trainable(name):
            found.update(f"{name} {tuple(value.shape)} ".encode())
            found.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return found.hexdigest()
