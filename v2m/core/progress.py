"""Reports of a run: a progress bar (on a terminal) or a line (in a log) per stage, captured warnings."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from v2m.core.types import ProgressFn

StageProgress = Callable[[str], AbstractContextManager[ProgressFn]]  # `with stages("name of the stage") as progress: …`


@contextmanager
def no_progress(name: str) -> Iterator[ProgressFn]:  # noqa: ARG001 - a StageProgress
    """Report a stage nowhere."""
    yield ignore_progress


def ignore_progress(fraction: float) -> None:
    pass


@contextmanager
def tqdm_progress(name: str) -> Iterator[ProgressFn]:
    """Show a tqdm bar on standard error with the time left."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    start = time.perf_counter()
    layout = "{desc:<24} {percentage:3.0f}% |{bar:24}| {elapsed}<{remaining}"
    size = shutil.get_terminal_size()  # never 0, which some terminals report and where tqdm would draw nothing
    bar = tqdm(total=1.0, desc=name, bar_format=layout, disable=not live, ncols=size.columns, nrows=size.lines)

    def progress(fraction: float) -> None:
        bar.update(min(1.0, fraction) - bar.n)

    with bar:
        yield progress
        progress(1.0)
    if not live:
        sys.stderr.write(f"{name:<24} 100% |{'█' * 24}| {time.perf_counter() - start:.1f} s\n")


def sub_progress(progress: ProgressFn | None, low: float, high: float) -> ProgressFn:
    """Return a callback that maps 0–1 of a part of the work to `low`–`high` of `progress` (or nowhere)."""
    if progress is None:
        return ignore_progress

    def report(fraction: float) -> None:
        progress(low + (high - low) * fraction)

    return report


class _ListHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        if message not in self.messages:
            self.messages.append(message)


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """Collect the distinct warnings that the loggers of `v2m` get inside the block, one line each."""
    handler, logger = _ListHandler(), logging.getLogger("v2m")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
