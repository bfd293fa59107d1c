"""An average of the weights over the steps, which is what is measured and exported."""

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
    """Exponential moving average of all weights that learn.

    In its first steps it averages over fewer, so that it does not remember what training began with.

    Args:
        decay: Share that is kept at a step; 0 averages nothing.
        every_n_steps: Steps from one update to the next.
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1) -> None:
        self.decay, self.every_n_steps = decay, max(1, every_n_steps)
        self._ema: dict[str, Tensor] = {}
        self._loaded: dict[str, Tensor] | None = None
        self._last_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Only now are weights, step and average those of the checkpoint under every strategy."""
        self._last_step = trainer.global_step
        held, self._loaded = self._loaded or {}, None
        for name, value in _trainable_parameters(pl_module) if self.decay > 0 else ():
            own = value.detach()
            self._ema[name] = distribute_like(held[name], own) if name in held else own.clone()

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
            found = {name: full_tensor(value) for name, value in self._ema.items()}  # by all ranks together
            checkpoint[EMA_KEY] = found if trainer.is_global_zero else {}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        self._loaded = checkpoint.get(EMA_KEY)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module's weights are the averaged ones while the block lasts."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        for name, value in _trainable_parameters(module) if self._ema else ():
            own = value.detach().clone()
            value.copy_(self._ema[name])
            self._ema[name].copy_(own)


def _trainable_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in module.named_parameters() if value.requires_grad]
