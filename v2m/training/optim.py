"""AdamW parameter groups and the learning-rate schedule: linear warmup, plateau, cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from v2m.models import lora


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, 2019), linear warmup, then cosine decay to `min_lr_ratio`.

    With `decay_steps` the rate is constant before it decays (warmup-stable-decay; Hu et al., "MiniCPM", 2024): a run
    can then be resumed with more steps, and runs of different lengths compare at equal steps.

    Args:
        lr: Learning rate of new weights: the conditioner, the learned nulls, adapters.
        lm_lr_scale: Factor of `lr` for the language model and the projection of its text.
        warmup_steps: Steps in which the learning rate rises.
        total_steps: Length of the schedule; None is the trainer's max_steps.
        decay_steps: Last steps of the schedule, in which the rate decays; None is all after the warmup.
        min_lr_ratio: Share of the learning rate that is left at the end.
        betas, eps, weight_decay: AdamW's; only matrices decay.
    """

    lr: float = 1e-4
    lm_lr_scale: float = 0.1
    warmup_steps: int = 1000
    total_steps: int | None = None
    decay_steps: int | None = None
    min_lr_ratio: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def lr_factor(self, step: int, total_steps: int) -> float:
        """Return the factor of the learning rates at `step` of `total_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        start = (
            self.warmup_steps if self.decay_steps is None else max(self.warmup_steps, total_steps - self.decay_steps)
        )
        progress = min(1.0, max(0.0, (step - start) / max(1, total_steps - start)))
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def param_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return parameter groups: new weights (`conditioner`) and pretrained (`lm`), with and without decay."""
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_new, is_matrix = lora.is_trainable(name), parameter.ndim > 1
            group_name = f"{'conditioner' if is_new else 'lm'}{'' if is_matrix else '_no_decay'}"
            lr = config.lr * (1.0 if is_new else config.lm_lr_scale)
            weight_decay = config.weight_decay if is_matrix else 0.0
            group = {"name": group_name, "params": [], "lr": lr, "weight_decay": weight_decay}
            groups.setdefault(group_name, group)["params"].append(parameter)
    return list(groups.values())
