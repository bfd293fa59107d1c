"""Checkpoints from which training resumes bit for bit: atomic files, random states, signals.

The schedule is Lightning's ModelCheckpoint; what it lacks is here. The step that was just loaded is not saved again.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import signal
import subprocess
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from v2m.core import compat
from v2m.core.atomic import atomic_write
from v2m.core.errors import DISK_FULL_ERRNOS, DiskFullError, UsageError, error_text

REQUEUE_SIGNAL = getattr(signal, "SIGUSR1", None)  # SLURM's; Windows has none
ANOMALY = re.compile(r"Function '(\w+)' returned nan values")  # PyTorch's words
RNG_STATE = "rng_state"  # key in a checkpoint: the states of the random numbers, by rank

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the file and rename, so that a file of its name is complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Raise DiskFullError where the disk is full; an older file of that name stays."""
        try:
            with atomic_write(Path(path)) as file:
                sink: Any = _ErrorRecorder(file)
                try:
                    torch.save(checkpoint, sink)
                except RuntimeError:  # torch's writer reports only an unexpected position in the file
                    raise sink.error or OSError("torch could not write it") from None
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS - {errno.EROFS}:
                cure = "those before it are complete; free some room and give the same command again"
                problem = f"the disk is too full for the checkpoint {str(path)!r} ({error.strerror})"
                raise DiskFullError(f"{problem}: {cure}") from None
            raise

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Return tensors and plain values; anything else in the file is refused, not run."""
        return torch.load(path, map_location=map_location, weights_only=True)


class _ErrorRecorder:
    """A file that records why it could not be written."""

    def __init__(self, file: Any) -> None:
        self.file, self.error = file, None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


class CheckpointCallback(ModelCheckpoint):
    """Save every so many steps, at the end, and after the current step on a signal, which ends the run.

    SIGTERM, SIGINT and, in a job of SLURM, SIGUSR1 end it; after the last the job is requeued. A second SIGINT ends it
    at once. A loss or a weight that is not finite ends it without a checkpoint.

    Args:
        every_n_train_steps: Steps of the optimizer from one checkpoint to the next.
        keep_last: Number of the newest checkpoints that are kept.
        dirpath: Folder of the checkpoints; None is `checkpoints` in the trainer's default_root_dir.
    """

    def __init__(self, every_n_train_steps: int = 500, keep_last: int = 3, dirpath: Path | None = None) -> None:
        # Its own top-k would never remove the checkpoint that a run resumed from: here all are kept, then pruned.
        super().__init__(
            dirpath,
            "step{step:08d}",
            save_top_k=-1,
            every_n_train_steps=max(1, every_n_train_steps),
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.keep_last = max(1, keep_last)
        self.signal: int | None = None
        self._step = 0
        self._loaded_rng_states: list[dict[str, Any]] | None = None
        self._handlers: dict[int, Any] = {}

    def directory(self, trainer: lightning.Trainer) -> Path:
        """Return the folder of the checkpoints, the same for every logger: a run that resumes looks there."""
        return Path(self.dirpath or Path(trainer.default_root_dir) / "checkpoints")

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        self.dirpath = str(self.directory(trainer))
        with warnings.catch_warnings():  # that the folder is not empty is no news to a run that resumes
            warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
            super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, without paths: a run's files do not depend on its folder."""
        return {"best_model_score": None, "best_model_path": ""}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step
        compat.mark_saved(self, self._step)
        if self._loaded_rng_states is None:  # dropout differs from rank to rank; the initial weights were the same
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
        requeue = {REQUEUE_SIGNAL} if REQUEUE_SIGNAL and "SLURM_JOB_ID" in os.environ else set()
        numbers = {signal.SIGTERM, signal.SIGINT} | requeue
        self._handlers = {number: signal.signal(number, self._on_signal) for number in numbers}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if (
            self._loaded_rng_states is not None
        ):  # as late as possible: Lightning draws random numbers before the first step
            restore_rng_state(self._loaded_rng_states[trainer.global_rank % len(self._loaded_rng_states)])
            self._loaded_rng_states = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if _any_not_finite(trainer, [outputs["loss"]] if outputs else ()):
            problem = (
                f"the loss is not finite at step {self._step + 1} (batch {batch_idx} of epoch {trainer.current_epoch})"
            )
            raise UsageError(self._describe_divergence(trainer, problem))
        if trainer.global_step == self._step:  # amid the batches of one step
            return
        self._step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._prune(trainer)
        signaled = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if signaled or self._step == trainer.max_steps:
            self._save_now(trainer)
        if signaled:
            number = self.signal or signal.SIGTERM
            if number == REQUEUE_SIGNAL and trainer.is_global_zero:
                _requeue()
            raise SystemExit(128 + number)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        self._save_now(trainer)
        restore_signal_handlers(self._handlers)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Restore the signal handlers; give what `detect_anomaly` has found a UsageError as its cause."""
        restore_signal_handlers(self._handlers)
        if isinstance(exception, RuntimeError) and (match := ANOMALY.match(str(exception))):
            problem = f"{match[1]} gave NaN in the backward pass of step {self._step + 1}"
            exception.__cause__ = UsageError(self._describe_divergence(trainer, problem))

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        if _any_not_finite(trainer, checkpoint["state_dict"].values()):
            problem = f"weights are not finite after step {trainer.global_step}"
            raise UsageError(self._describe_divergence(trainer, problem))
        checkpoint[RNG_STATE] = states = [rng_state()] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, states[0])

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        self._loaded_rng_states = checkpoint.get(RNG_STATE)

    def _save_now(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step > compat.last_saved_step(self):
            path = self.format_checkpoint_name({"step": torch.tensor(trainer.global_step)})
            compat.save_with_callback(self, trainer, path)
            self._prune(trainer)

    def _describe_divergence(self, trainer: lightning.Trainer, problem: str) -> str:
        paths = list_checkpoints(self.directory(trainer))
        last = f"the last good checkpoint is {str(paths[0])!r}" if paths else "there is no checkpoint before it"
        cure = "give a lower `model.optim.lr`, `trainer.gradient_clip_val=1.0` or `trainer.precision=32-true`"
        return f"{problem}, so the run ends and nothing of that step is saved; {last}: {cure}"

    def _prune(self, trainer: lightning.Trainer) -> None:
        if trainer.is_global_zero and compat.last_saved_step(self) == trainer.global_step:
            for path in list_checkpoints(self.directory(trainer))[self.keep_last :]:
                trainer.strategy.remove_checkpoint(path)

    def _on_signal(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.signal == number:
            raise KeyboardInterrupt
        logger.warning("signal %d: the run ends after this step, with a checkpoint", number)
        self.signal = number


def _any_not_finite(trainer: lightning.Trainer, values: Iterable[Any]) -> bool:
    """Return whether a value of any rank is NaN or infinite; ranks check their parts of sharded tensors."""
    local = [value.to_local() if hasattr(value, "to_local") else value for value in values]
    found = [(~torch.isfinite(value)).any() for value in local if value.is_floating_point()]
    own = any(bool(flag) for flag in found)
    return trainer.strategy.reduce_boolean_decision(own, all=False)


def restore_signal_handlers(handlers: dict[int, Any]) -> None:
    """Restore the handlers, by signal number, that `signal.signal` returned; empty the dict."""
    while handlers:
        signal.signal(*handlers.popitem())


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first."""
    paths = folder.glob("step*.ckpt") if folder.is_dir() else ()
    return sorted((path for path in paths if re.fullmatch(r"step\d+\.ckpt", path.name)), reverse=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that can be read; those that cannot are skipped with a warning."""
    for path in list_checkpoints(folder):
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return path
        except Exception as error:  # of any kind: the file decides which
            logger.warning("%s cannot be read (%s): the checkpoint before it is tried", path, error_text(error, 120))
    return None


def rng_state() -> dict[str, Any]:
    """Return the states of Python, NumPy, PyTorch and each CUDA device, as plain values and tensors.

    Lightning's own collection holds NumPy arrays, which `torch.load(weights_only=True)` refuses.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned; the CUDA states only where the number of devices is the same."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device_state.cpu() for device_state in state["cuda"]])


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the random states after the block, even where it raises, unlike Lightning's `isolate_rng`."""
    state = rng_state()
    try:
        yield
    finally:
        restore_rng_state(state)


def _requeue() -> None:
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    assert re.fullmatch(r"[0-9_]+", job), job
    if subprocess.run(["scontrol", "requeue", job], check=False).returncode:
        logger.warning("SLURM did not requeue job %s: submit it again, and it resumes", job)
