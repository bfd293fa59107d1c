"""The engine on a Ray cluster: one actor per worker, which holds its models from video to video.

Plain actors and not Ray Data: a video is a path, and its result a line of the ledger that the driver appends. There is
no table to stream from stage to stage. Actors give what is needed in the fewest lines. Ray starts a dead one again, and
repeats the one call that it had in hand. One video per actor in flight is all the backpressure that is wanted. The
driver sees each result by itself, in time to record it; Ray Data groups videos in blocks, and repeats a lost block as a
whole.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple

from v2m.core import errors
from v2m.core.engine import ItemT, ResultT
from v2m.core.errors import DependencyError, UsageError, error_text
from v2m.distributed.cluster import LOCAL, WorkerPlan, connect, plan_workers

MAX_ATTEMPTS = 3  # for a video that ends its worker: it may be the video's memory, or another program's
STOP_S, STOP_POLL_S = 5.0, 0.5  # given to workers for tidying up, and between their looks for the request

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayEngine:
    """Applies the function in the actors of a Ray cluster.

    Args:
        address: Of the cluster: auto, HOST:PORT, or local, which starts one on this machine.
        num_processes: Number of actors; None is as many as the cluster has room for.
        worker_gpus: GPUs of each actor, also a part of one; None is 1 where there are any.
    """

    address: str = LOCAL
    num_processes: int | None = None
    worker_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.num_processes is not None and self.num_processes < 1:
            raise UsageError(f"processes {self.num_processes} must be above 0")

    def map(
        self,
        load: Callable[[], Callable[[ItemT], ResultT]],
        items: Sequence[ItemT],
        on_lost: Callable[[ItemT, str], ResultT],
    ) -> Iterator[ResultT]:
        """Yield the result of each item when it has ended; see `v2m.core.engine.Engine`."""
        if not items:
            return
        try:
            with connect(self.address, self.num_processes) as ray:
                nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
                plan = plan_workers(nodes, self.num_processes, self.worker_gpus)
                pool = _Pool(ray, plan._replace(num_workers=min(plan.num_workers, len(items))), load, on_lost)
                try:
                    yield from pool.map(items)
                finally:
                    pool.close()
        except SystemExit:  # Ray replaces its code
            raise SystemExit(errors.SIGTERM) from None


class _Output(NamedTuple):
    """The answer of a worker: the result, and what was logged meanwhile."""

    result: Any
    records: list[tuple[str, int, str]]  # logger, level, message
    is_restarted: bool  # for the first item after a restart


class _Worker:
    """The actor: it loads the function with its first item, and works in the driver's folder."""

    def __init__(self, load: Callable[[], Callable[[Any], Any]], folder: str, gpus: float, stop_key: str) -> None:
        with suppress(OSError):  # relative paths of the options mean the same here
            os.chdir(folder)
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import ray

        self._function = cache(load)
        self._is_restarted = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        self._is_busy = self._is_stopped = False
        if os.name == "posix":
            threading.Thread(target=self._await_stop, args=(stop_key,), daemon=True).start()

    def apply(self, item: Any) -> _Output:
        handler = _RecordList()
        logging.root.addHandler(handler)
        self._is_busy = True
        try:
            return _Output(self._function()(item), handler.records, self._is_restarted)
        except SystemExit:
            if not self._is_stopped:
                raise
            return _Output(None, [], False)  # an actor that exits would be started again
        finally:
            self._is_busy = self._is_restarted = False
            logging.root.removeHandler(handler)

    def _await_stop(self, key: str) -> None:
        """End the work in hand when the driver sets the key; what is unfinished is then tidied up."""
        from ray.experimental.internal_kv import _internal_kv_exists

        while not _internal_kv_exists(key):
            time.sleep(STOP_POLL_S)
        self._is_stopped = True
        main = threading.main_thread().ident
        if self._is_busy and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)  # for which Ray has a handler that raises SystemExit


class _RecordList(logging.Handler):
    """Keeps warnings for the driver, which logs them as if they were its own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))


class _Pool(Generic[ItemT, ResultT]):
    """The actors of one run, each with at most one item in flight."""

    def __init__(
        self,
        ray: Any,
        plan: WorkerPlan,
        load: Callable[[], Callable[[ItemT], ResultT]],
        on_lost: Callable[[ItemT, str], ResultT],
    ) -> None:
        self._ray, self._plan, self._on_lost = ray, plan, on_lost
        self._load, self._stop_key = load, f"v2m-stop-{secrets.token_hex(8)}"
        options = {"num_cpus": plan.cpus, "num_gpus": plan.gpus}
        # The dead are started again, on another machine if need be, and repeat the call that they had in hand.
        restarts = {"max_restarts": -1, "max_task_retries": MAX_ATTEMPTS - 1}
        self._actor_class = ray.remote(**options, **restarts)(_Worker)
        self._actors: set[Any] = set()
        self._running: dict[Any, tuple[Any, ItemT]] = {}  # by the reference of the result, actor and item

    def map(self, items: Sequence[ItemT]) -> Iterator[ResultT]:
        queue = iter(items)
        for item in (next(queue) for _ in range(self._plan.num_workers)):
            self._submit(self._start(), item)
        while self._running:
            [reference], _ = self._ray.wait(list(self._running), num_returns=1)
            actor, item = self._running.pop(reference)
            result, actor = self._result(reference, actor, item)
            yield result  # to be recorded before its worker gets another
            try:
                self._submit(actor, next(queue))
            except StopIteration:
                self._end(actor)  # makes room for one that waits to be started again elsewhere

    def close(self) -> None:
        """End the actors; those that work on an item get a moment to tidy up."""
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

        if self._running:
            _internal_kv_put(self._stop_key, b"1")
            self._ray.wait([*self._running], num_returns=len(self._running), timeout=STOP_S)
        for actor in [*self._actors]:
            self._end(actor)
        _internal_kv_del(self._stop_key)

    def _start(self) -> Any:
        actor = self._actor_class.remote(self._load, str(Path.cwd()), self._plan.gpus, self._stop_key)
        self._actors.add(actor)
        return actor

    def _end(self, actor: Any) -> None:
        self._actors.remove(actor)
        self._ray.kill(actor)

    def _submit(self, actor: Any, item: ItemT) -> None:
        self._running[actor.apply.remote(item)] = actor, item

    def _result(self, reference: Any, actor: Any, item: ItemT) -> tuple[ResultT, Any]:
        """Return the result of an item, and the actor that is free now."""
        from ray.exceptions import RayActorError, RayTaskError

        try:
            output: _Output = self._ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from error
            raise
        except RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                problem = f"a worker of the cluster cannot be started ({error_text(error, 500)})"
                raise DependencyError(f"{problem}: install the same v2m on every machine") from error
            self._end(actor)
            reason = f"{MAX_ATTEMPTS} workers were ended while they worked on it, likely for want of memory"
            return self._on_lost(item, reason), self._start()
        for name, level, message in output.records:
            logging.getLogger(name).log(level, "%s", message)
        if output.is_restarted:
            logger.warning("a worker was ended, likely for want of memory: its video was done again")
        return output.result, actor
