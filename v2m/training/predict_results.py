"""Results of `predict` over all ranks, and the exit code."""

from __future__ import annotations

import logging
import os
import signal
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any

import lightning
from torch import distributed

from v2m.core import errors
from v2m.core.errors import DiskFullError
from v2m.pipeline import batch
from v2m.pipeline.batch import VideoResult

GATHER_TIMEOUT = timedelta(days=365)  # that a rank waits for the others: the longest video decides

logger = logging.getLogger(__name__)


class PredictResults(lightning.Callback):
    """Collects what `predict_step` gives: a row for each video of its batch, which is one or none.

    SIGTERM and SIGINT end the run at once, on every rank that it has started.
    """

    def __init__(self) -> None:
        self.rows: list[VideoResult] = []  # of this rank; at the end, of all, in the order of the videos
        self._group: Any = None
        self._handlers: dict[int, Any] = {}
        self._parent_pid: int | None = None
        self._signal: int | None = None  # the signal that asks for the end

    @property
    def exit_code(self) -> int:
        """The exit code."""
        return errors.BATCH if any(row.code != errors.OK for row in self.rows) else errors.OK

    @property
    def table(self) -> str:
        return batch.table(self.rows)

    def on_predict_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        self.rows, self._signal = [], None
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo", timeout=GATHER_TIMEOUT)
        launcher, parent = trainer.strategy.launcher, os.getppid()

        def end(number: int, _: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # with which it hears of the ranks that end
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._signal = number
            if launcher is not None:
                launcher.kill(number)  # type: ignore[arg-type]
            raise SystemExit(128 + number)

        self._parent_pid = parent if trainer.local_rank else None
        self._handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        if self._parent_pid is not None and os.getppid() != self._parent_pid:  # killed, and nobody waits for this rank
            raise SystemExit(errors.SIGTERM)
        self._exit_if_signaled()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self.rows += outputs
        for row in outputs:
            if row.code == errors.BUG:
                logger.error("%s: %s", row.path, row.trace)
        self._exit_if_signaled()
        full = next((row for row in outputs if row.code == errors.DISK), None)
        if full is not None:
            raise DiskFullError(f"{full.path.name!r}: {full.detail}")

    def on_predict_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        if self._group is not None:
            every: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(every, self.rows, group=self._group)
            self.rows = [row for row in chain(*zip_longest(*every)) if row is not None]

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._restore_signal_handlers()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        self._restore_signal_handlers()

    def _exit_if_signaled(self) -> None:
        """Exit after a signal whose exception was lost during cleanup."""
        if self._signal is not None:
            raise SystemExit(128 + self._signal)

    def _restore_signal_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers, self._group = {}, None
