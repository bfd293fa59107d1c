"""Work in threads, for functions that release the interpreter, as numpy's transforms do."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_THREADS = min(4, os.cpu_count() or 1)


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of `items` in their order; a few are taken ahead, in the caller's thread."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * NUM_THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
