"""How fast training is and how its steps look: figures for whatever logger there is."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning
import torch

from v2m.core.timing import mean_rate
from v2m.data.collate import Batch
from v2m.training.fsdp import full_tensor


class ThroughputLogger(lightning.Callback):
    """Logs learning rates, the norm of the gradient before it is clipped, samples and codes a second, hours of music
    heard so far, and the peaks of the process's memory and of the GPU's. Validation does not count as time.

    Args:
        every: Batches over which speeds are averaged.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = max(1, every)
        self._since: tuple[float, int, int, int] | None = None  # when; batches, samples and codes since
        self._hours = 0.0

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        gradients = [value.grad for value in pl_module.parameters() if value.grad is not None]
        pl_module.log("step/gradient_norm", full_tensor(torch.nn.utils.get_total_norm(gradients)))
        for group in optimizer.param_groups:
            pl_module.log(f"rate/{group['name']}", group["lr"])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        self._since = self._since or (time.monotonic(), 0, 0, 0)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._since = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        now = time.monotonic()
        began, batches, samples, codes = self._since or (now, 0, 0, 0)
        frames, world = int(batch.lengths.sum()), trainer.world_size
        window = getattr(getattr(trainer, "datamodule", None), "window", 0.0)
        self._hours += world * window * frames / batch.codes.shape[2] / 3600
        samples, codes = samples + world * len(batch.codes), codes + world * frames * batch.codes.shape[1]
        self._since = began, batches + 1, samples, codes
        if batches + 1 >= self.every and now > began:
            pl_module.log("speed/samples_a_second", mean_rate(samples, now - began), batch_size=1)
            pl_module.log("speed/codes_a_second", mean_rate(codes, now - began), batch_size=1)
            pl_module.log("speed/hours_of_music", self._hours, batch_size=1)
            if (peak := _peak_rss()) is not None:
                pl_module.log("speed/peak_gigabytes_of_process", peak / 1e9, batch_size=1)
            if torch.cuda.is_available():
                pl_module.log("speed/peak_gigabytes", torch.cuda.max_memory_allocated() / 1e9, batch_size=1)
            self._since = now, 0, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"hours": self._hours}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._hours = float(state_dict["hours"])


def _peak_rss() -> int | None:
    """Bytes that this process has held at most; None on systems that do not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
