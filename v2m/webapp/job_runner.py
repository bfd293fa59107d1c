"""Runner of the page's tasks: one worker process, which holds one recipe's models at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from v2m.core.errors import UsageError
from v2m.webapp.worker import Event, Task, serve

POLL = 0.2  # seconds


class CancelledTaskError(Exception):
    """Somebody ended the task."""


@dataclass
class _Staff:
    process: Any
    pipe: Connection
    recipe: str


class Desk:
    """Does one task at a time: who calls sees to it that a second one waits, for it would end the first.

    Args:
        minutes: That a task may take.
    """

    def __init__(self, minutes: float = 60.0) -> None:
        self.minutes = minutes
        self._staff: _Staff | None = None
        self._owner: str | None = None
        self._lock = threading.RLock()  # whoever collects a task that was left may hold it

    def ready(self, recipe: str) -> None:
        """Starts the process, so that the first task need not wait for it."""
        with self._lock:
            left = self._owner is not None  # by a visitor of whom nothing more was heard
            if left or self._staff is None or self._staff.recipe != recipe or not self._staff.process.is_alive():
                self._dismiss()
                context = get_context("spawn")
                ours, theirs = context.Pipe()
                process = context.Process(target=serve, args=(theirs,), daemon=True, name="v2m-worker")
                process.start()
                theirs.close()
                self._staff = _Staff(process, ours, recipe)

    def run(self, task: Task, owner: str) -> Generator[Event, None, None]:
        """Yield the worker's events of the task, and None in between; the last is "done".

        Raises:
            CancelledTaskError: `cancel` was called.
            UsageError: The task failed, in one line; or it took too long, or its process was ended by the system.
        """
        self.ready(task.recipe)
        with self._lock:
            staff, self._owner = self._staff, owner
        assert staff is not None
        over = False
        try:
            for event in self._told(staff, task):
                over = event[0] == "done"
                yield event
        except UsageError:
            over = True
            raise
        finally:
            with self._lock:
                if self._staff is staff:
                    self._owner = None
                    if not over:  # nobody listens any more: what is half done would be in the next task's way
                        self._dismiss()

    def _told(self, staff: _Staff, task: Task) -> Iterator[Event]:
        end = time.monotonic() + 60 * self.minutes
        try:
            staff.pipe.send(task)
            while True:
                if not staff.pipe.poll(POLL):
                    if time.monotonic() > end:
                        self.cancel()
                        raise UsageError(f"it took more than {self.minutes:g} minutes and was ended")
                    yield ("waiting", None)
                    continue
                event = staff.pipe.recv()
                if event[0] == "failed":
                    raise UsageError(event[1])
                yield event
                if event[0] == "done":
                    return
        except (EOFError, OSError):
            if self._staff is not staff:
                raise CancelledTaskError from None
            self.cancel()
            raise UsageError("the work was ended by the system, which happens when memory runs out") from None

    def cancel(self, owner: str | None = None) -> bool:
        """Ends the task of `owner`, or whatever is done, with its process; whether there was one."""
        with self._lock:
            if owner is not None and owner != self._owner:
                return False
            there = self._staff is not None
            self._dismiss()
            return there

    def _dismiss(self) -> None:
        staff, self._staff, self._owner = self._staff, None, None
        if staff is not None:
            staff.process.kill()
            staff.process.join()
            staff.pipe.close()
