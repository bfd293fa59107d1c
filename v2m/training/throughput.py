"""Training speed, gradient norm and memory, for any logger.

The rates are Lightning's `Throughput`. Its callback ThroughputMonitor is not used: it logs validation with the index of
a batch in place of the step, fails on the batches of `predict`, and logs neither audio hours nor gradient norms.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.throughput import Throughput
from lightning.pytorch.callbacks import LearningRateMonitor

from v2m.data.collate import Batch
from v2m.data.module import attached_shards
from v2m.training.fsdp import full_tensor


class OptionalLearningRateMonitor(LearningRateMonitor):
    """Log learning rates where there is a logger; Lightning's own refuses to train without one."""

    def on_train_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)


class ThroughputLogger(lightning.Callback):
    """Log throughput, hours of music so far, gradient norm before clipping, and peak memory.

    Throughput is samples and codes per second, without the time of validation.

    Args:
        window_size: Batches of the rolling average, 2 or more.
    """

    def __init__(self, window_size: int = 10) -> None:
        self.window_size = max(2, window_size)
        self._throughput = Throughput(window_size=self.window_size)
        self._start: float | None = None
        self._batches = self._samples = self._codes = 0
        self._hours = 0.0

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        gradients = [value.grad for value in pl_module.parameters() if value.grad is not None]
        pl_module.log("train/grad_norm", full_tensor(torch.nn.utils.get_total_norm(gradients)))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        if self._start is None:
            self._throughput.reset()
            self._start, self._batches, self._samples, self._codes = time.perf_counter(), 0, 0, 0

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._start = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        assert self._start is not None
        frames = int(batch.lengths.sum())  # waits for the GPU
        data = attached_shards(trainer)
        window = 0.0 if data is None else data.window
        self._hours += trainer.world_size * window * frames / batch.codes.shape[2] / 3600
        self._batches += 1
        self._samples += trainer.world_size * len(batch.codes)
        self._codes += trainer.world_size * frames * batch.codes.shape[1]
        elapsed = time.perf_counter() - self._start
        self._throughput.update(time=elapsed, batches=self._batches, samples=self._samples, lengths=self._codes)
        rates = self._throughput.compute()
        if "device/items_per_sec" in rates:  # the window is full
            metrics = {"audio_hours": self._hours, "samples_per_sec": rates["device/samples_per_sec"]}
            metrics["codes_per_sec"] = rates["device/items_per_sec"]
            if (peak := _peak_rss()) is not None:
                metrics["process_peak_gb"] = peak / 1e9
            if torch.cuda.is_available():
                metrics["gpu_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            pl_module.log_dict({f"throughput/{name}": value for name, value in metrics.items()}, batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        return {"hours": self._hours}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._hours = float(state_dict["hours"])


def _peak_rss() -> int | None:
    """Return the peak memory of this process in bytes, or None where the system does not count it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
