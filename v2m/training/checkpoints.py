"""Training that survives: checkpoints written whole or not at all, the random numbers in them, and orderly ends."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from v2m.core.atomic import fsync_dir
from v2m.core.errors import DISK_FULL_ERRNOS, DiskFullError

REQUEUE = getattr(signal, "SIGUSR1", None)  # SLURM's; Windows has neither
RNG_STATE = "random"  # in a checkpoint: the states of the random numbers of each rank

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames, so that its name never stands for a part of it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Raises DiskFullError where the disk is full; what was there stays."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with part.open("wb") as file:
                sink: Any = _Sink(file)
                try:
                    torch.save(checkpoint, sink)
                except RuntimeError:  # torch's writer says only that it stands elsewhere than it should
                    raise sink.error or OSError("torch could not write it") from None
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            fsync_dir(path.parent)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS - {errno.EROFS}:
                raise DiskFullError(
                    f"the disk is too full for the checkpoint {str(path)!r} ({error.strerror}): those before it are "
                    "whole; free some room and give the same command again"
                ) from None
            raise
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Tensors and plain values; what else is in the file is refused, not run."""
        return torch.load(path, map_location=map_location, weights_only=True)


class _Sink:
    """A file that remembers why it could not be written."""

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


class CheckpointCallback(Checkpoint):
    """Saves every so many steps, at the end, and where a signal asks the run to end: after the step that is under way.

    SIGTERM, SIGINT and, in a job of SLURM, SIGUSR1 end it; after the last the job is put in its queue again. A second
    SIGINT ends it at once.

    Args:
        every: Steps of the optimizer from one checkpoint to the next.
        keep: How many of the newest are kept.
        folder: Where they go; None is `checkpoints` in the trainer's default_root_dir.
    """

    def __init__(self, every: int = 500, keep: int = 3, folder: Path | None = None) -> None:
        self.every, self.keep = max(1, every), max(1, keep)
        self.folder = folder and Path(folder)
        self.signal: int | None = None
        self._saved = self._step = 0
        self._random: list[dict[str, Any]] | None = None
        self._handlers: dict[int, Any] = {}

    def home(self, trainer: lightning.Trainer) -> Path:
        return self.folder or Path(trainer.default_root_dir) / "checkpoints"

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        self._saved = self._step = trainer.global_step
        if self._random is None:  # what is dropped differs from rank to rank; the model has begun alike on all
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
        asked = {signal.SIGTERM, signal.SIGINT} | ({REQUEUE} if REQUEUE and "SLURM_JOB_ID" in os.environ else set())
        self._handlers = {number: signal.signal(number, self._ask) for number in asked}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if self._random is not None:  # as late as can be: what Lightning does before the first step draws some
            restore_rng_state(self._random[trainer.global_rank % len(self._random)])
            self._random = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        step = trainer.global_step
        if step == self._step:  # amid the batches of one
            return
        self._step = step
        asked = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if asked or step % self.every == 0 or step == trainer.max_steps:
            self._save(trainer)
        if asked:
            number = self.signal or signal.SIGTERM
            if number == REQUEUE and trainer.is_global_zero:
                _requeue()
            raise SystemExit(128 + number)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        if trainer.global_step > self._saved:
            self._save(trainer)
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        self._leave()

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        own = rng_state()
        every = [own]
        if trainer.world_size > 1:
            every = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(every, own)
        checkpoint[RNG_STATE] = every

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        self._random = checkpoint.get(RNG_STATE)

    def _save(self, trainer: lightning.Trainer) -> None:
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.home(trainer) / f"step{trainer.global_step:08d}.ckpt")
        if trainer.is_global_zero:
            for path in list_checkpoints(self.home(trainer))[self.keep :]:
                trainer.strategy.remove_checkpoint(path)

    def _ask(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.signal == number:
            raise KeyboardInterrupt
        logger.warning("signal %d: the run ends after this step, with a checkpoint", number)
        self.signal = number

    def _leave(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    found = folder.glob("step*.ckpt") if folder.is_dir() else ()
    return sorted((path for path in found if re.fullmatch(r"step\d+\.ckpt", path.name)), reverse=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read; those that cannot are passed over with a warning."""
    for path in list_checkpoints(folder):
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return path
        except Exception as error:  # of any kind: the file decides which
            said = " ".join(str(error).split())[:120]
            logger.warning("%s cannot be read (%s): the one before it is taken", path, said)
    return None


def rng_state() -> dict[str, Any]:
    """Of Python, NumPy, PyTorch and each CUDA device, as plain values and tensors."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Whatever is drawn in the block, what is drawn after it is as if nothing had been."""
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
        logger.warning("SLURM did not requeue job %s: submit it again, and it goes on", job)
