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

TARGETS = ("query_key_value", "query", "key_value", "out", "expand", "contract")  # of every layer
BASE, DOWN, UP = ".base_layer.", ".lora_A.default.", ".lora_B.default."  # in peft's names of weights


@dataclass(frozen=True)
class LoRA:
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


def learns(name: str) -> bool:
    """Whether the weight of that name learns beside a frozen base."""
    return name.startswith(("conditioner.", "null_")) or DOWN in name or UP in name


def adapt(model: MusicModel, lora: LoRA, dtype: torch.dtype | None = None) -> None:
    """Puts adapters into the language model and freezes what was there, the projections of text and melody included.

    Args:
        model: Is changed.
        lora: Of the adapters.
        dtype: That the adapted matrices are held in; None leaves them. Under autocast they are multiplied in its type
            anyway, so that holding them in it changes no result.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it, and it tells of 4-bit kernels
    from peft import LoraConfig, inject_adapter_in_model

    given: Any = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    inject_adapter_in_model(LoraConfig(**given, target_modules=list(TARGETS)), model.lm)
    for name, value in model.named_parameters():
        value.requires_grad_(learns(name))
        if dtype is not None and BASE in name:
            value.data = value.data.to(dtype)


@contextmanager
def woven(model: nn.Module) -> Iterator[None]:
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


def own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a state, what learns: adapters, conditioner, what stands for nothing."""
    return {name: value for name, value in state.items() if learns(name)}


def merged(base: Mapping[str, Tensor], learned: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The state of a plain model that does what the adapted one does.

    Args:
        base: The state of the model that was adapted, in its own names; of what learned whole nothing is taken.
        learned: What `own` gives.
        scale: The product's share.

    Raises:
        KeyError: A matrix that was adapted is not in the base, or an adapter is half.
    """
    found = {name: value for name, value in base.items() if not learns(name)}
    found |= {name: value for name, value in learned.items() if DOWN not in name and UP not in name}
    for name, down in learned.items():
        if DOWN in name:
            plain, up = name.replace(DOWN, "."), learned[name.replace(DOWN, UP)]
            found[plain] = base[plain] + scale * (up.to(base[plain]) @ down.to(base[plain]))
    return found


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of what stays frozen in the state of a model that is to be adapted: names and float32 numbers."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not learns(name):
            found.update(f"{name} {tuple(value.shape)} ".encode())
            found.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return found.hexdigest()
