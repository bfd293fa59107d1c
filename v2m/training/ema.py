"""Exponential moving average (EMA) of the trained weights, which is validated and exported.

Lightning's EMAWeightAveraging is not used: by its own documentation it does not work with sharded models, and FSDP2 is
supported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from v2m.checkpoints.lightning_ckpt import EMA_KEY
from v2m.training.fsdp import distribute_like, full_tensor


class EMACallback(lightning.Callback):
    """Average all trainable weights over the steps.

    The decay starts lower and rises, so that the average forgets the initial weights.

    Args:
        decay: Share of the average that is kept at an update; 0 turns averaging off.
        every_n_steps: Steps from one update to the next.
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1) -> None:
        self.decay, self.every_n_steps = decay, max(1, every_n_steps)
        self._ema: dict[str, Tensor] = {}
        self._loaded: dict[str, Tensor] | None = None
        self._last_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # only here have weights, step and average been loaded from the checkpoint under every strategy
        self._last_step = trainer.global_step
        loaded, self._loaded = self._loaded or {}, None
        for name, value in _trainable_parameters(pl_module) if self.decay > 0 else ():
            weight = value.detach()
            self._ema[name] = distribute_like(loaded[name], weight) if name in loaded else weight.clone()

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        step = trainer.global_step
        if not self._ema or step == self._last_step or step % self.every_n_steps:
            return
        self._last_step, share = step, 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in _trainable_parameters(pl_module):
            self._ema[name].lerp_(value.detach(), share)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        self._swap(pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        self._swap(pl_module)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        if self._ema:
            state = {name: full_tensor(value) for name, value in self._ema.items()}  # by all ranks together
            checkpoint[EMA_KEY] = state if trainer.is_global_zero else {}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        self._loaded = checkpoint.get(EMA_KEY)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Give the module the averaged weights while the block lasts."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        for name, value in _trainable_parameters(module) if self._ema else ():
            weight = value.detach().clone()
            value.copy_(self._ema[name])
            self._ema[name].copy_(weight)


def _trainable_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in module.named_parameters() if value.requires_grad]
