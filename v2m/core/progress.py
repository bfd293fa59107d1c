"""A bar per stage on a terminal; one finished line per stage where the output goes to a file."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from v2m.core.types import ProgressFn

StageProgress = Callable[[str], AbstractContextManager[ProgressFn]]  # `with stages("name of the stage") as progress: …`


@contextmanager
def no_progress(name: str) -> Iterator[ProgressFn]:  # noqa: ARG001 - the shape of Stages
    """Shows nothing."""
    yield ignore_progress


def ignore_progress(fraction: float) -> None:
    pass


@contextmanager
def tqdm_progress(name: str) -> Iterator[ProgressFn]:
    """A tqdm bar on standard error with the time left."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    start = time.perf_counter()
    layout = "{desc:<24} {percentage:3.0f}% |{bar:24}| {elapsed}<{remaining}"
    room = shutil.get_terminal_size()  # never 0, which some terminals say and where tqdm would draw nothing
    bar = tqdm(total=1.0, desc=name, bar_format=layout, disable=not live, ncols=room.columns, nrows=room.lines)

    def progress(fraction: float) -> None:
        bar.update(min(1.0, fraction) - bar.n)

    with bar:
        yield progress
        progress(1.0)
    if not live:
        seconds = time.perf_counter() - start
        sys.stderr.write(f"{name:<24} 100% |{'█' * 24}| {seconds:.1f} s\n")


def sub_progress(progress: ProgressFn | None, low: float, high: float) -> ProgressFn:
    """A callback that maps 0–1 of a part of the work to `low`–`high` of `progress`; None reports nothing."""
    if progress is None:
        return ignore_progress

    def report(fraction: float) -> None:
        progress(low + (high - low) * fraction)

    return report
