"""How fast what learns: AdamW's groups and the schedule of their rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from v2m.models import lora as adapters


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, 2019) with a warm-up and then a cosine down to `floor`.

    Args:
        rate: Of learning, for what is new: the conditioner, what stands for nothing, adapters.
        lm_share: Times that rate for the language model and the projection of its text.
        warmup: Steps in which the rates rise.
        steps: Of the whole; None is the trainer's max_steps.
        floor: Share of the rates that is left at the end.
        betas, eps, decay: AdamW's; weights that are no matrices do not decay.
    """

    rate: float = 1e-4
    lm_share: float = 0.1
    warmup: int = 1000
    steps: int | None = None
    floor: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    decay: float = 0.1

    def share(self, step: int, steps: int) -> float:
        """Of the rates, at `step` of `steps`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


def param_groups(model: nn.Module, how: OptimConfig) -> list[dict[str, Any]]:
    """Of the optimizer: what is new and what was there before, matrices and the rest."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            new, matrix = adapters.is_trainable(name), value.ndim > 1
            kind = f"{'conditioner' if new else 'lm'}{'' if matrix else ', undecayed'}"
            rate, decay = how.rate * (1.0 if new else how.lm_share), how.decay if matrix else 0.0
            found.setdefault(kind, {"name": kind, "params": [], "lr": rate, "weight_decay": decay})["params"].append(
                value
            )
    return list(found.values())
