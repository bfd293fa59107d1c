"""AdamW parameter groups and the learning-rate schedule: linear warm-up, then cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from v2m.models import lora as adapters


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, 2019), linear warm-up, then a cosine down to `min_lr_ratio`.

    Args:
        lr: Learning rate of new weights: the conditioner, the learned nulls, adapters.
        lm_lr_scale: Factor of `lr` for the language model and the projection of its text.
        warmup_steps: Steps in which the learning rate rises.
        total_steps: Length of the schedule; None is the trainer's max_steps.
        min_lr_ratio: Share of the learning rate that is left at the end.
        betas, eps, weight_decay: AdamW's; only matrices decay.
    """

    lr: float = 1e-4
    lm_lr_scale: float = 0.1
    warmup_steps: int = 1000
    total_steps: int | None = None
    min_lr_ratio: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def lr_factor(self, step: int, total_steps: int) -> float:
        """Return the factor of the learning rates at `step` of `total_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def param_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return the optimizer's groups: new weights (`conditioner`) and pretrained ones (`lm`), with and without decay."""
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new, matrix = adapters.is_trainable(name), parameter.ndim > 1
            group_name = f"{'conditioner' if new else 'lm'}{'' if matrix else '_no_decay'}"
            lr, weight_decay = config.lr * (1.0 if new else config.lm_lr_scale), config.weight_decay if matrix else 0.0
            group = groups.setdefault(
                group_name, {"name": group_name, "params": [], "lr": lr, "weight_decay": weight_decay}
            )
            group["params"].append(parameter)
    return list(groups.values())
