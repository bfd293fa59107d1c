"""Contract of engines, which apply one function to many videos, and the one of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Engine(Protocol):
    """Applies a function to each item once, in one process or in many."""

    def map(
        self,
        load: Callable[[], Callable[[ItemT], ResultT]],
        items: Sequence[ItemT],
        on_lost: Callable[[ItemT, str], ResultT],
    ) -> Iterator[ResultT]:
        """Yield the result of each item when it has ended, in any order.

        `load` is called once in each process, with the first item: the function that it returns holds the models. All
        arguments are pickled where there are other processes. An error of the function ends the run. `on_lost` makes
        the result of an item that has ended its process again and again; it is given the reason, too.
        """
        ...


class SerialEngine:
    """Applies the function in this process, in the order of the items."""

    def map(
        self,
        load: Callable[[], Callable[[ItemT], ResultT]],
        items: Sequence[ItemT],
        on_lost: Callable[[ItemT, str], ResultT],  # noqa: ARG002 - this process is never lost
    ) -> Iterator[ResultT]:
        if items:
            function = load()
            for item in items:
                yield function(item)


def map_in_order(
    engine: Engine,
    load: Callable[[], Callable[[ItemT], ResultT]],
    items: Sequence[ItemT],
    on_progress: Callable[[], object] = lambda: None,
) -> list[ResultT]:
    """Return the results in the order of the items. Raise MemoryError for an item that ends its processes."""
    results: dict[int, ResultT] = {}
    for number, result in engine.map(partial(_load_numbered, load), [*enumerate(items)], _raise_lost):
        results[number] = result
        on_progress()
    return [results[number] for number in range(len(items))]


def _load_numbered(
    load: Callable[[], Callable[[ItemT], ResultT]],
) -> Callable[[tuple[int, ItemT]], tuple[int, ResultT]]:
    """Load the function of items with their number, which the results get as well."""
    function = load()
    return lambda numbered: (numbered[0], function(numbered[1]))


def _raise_lost(item: tuple[int, object], reason: str) -> Any:
    raise MemoryError(f"item {item[0] + 1}: {reason}")
