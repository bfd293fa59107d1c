"""Work in threads comes back in order, and is not taken far ahead."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from v2m.core.threads import NUM_THREADS, map_in_threads


def test_results_come_in_the_order_of_their_items() -> None:
    def square(number: int) -> int:
        time.sleep(0.002 * (5 - number % 5))
        return number * number

    assert [*map_in_threads(square, range(40))] == [number * number for number in range(40)]


def test_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_in_threads(abs, numbers())
    for number in range(100):
        assert next(results) == number
        assert len(taken) <= number + 2 * NUM_THREADS + 1


def test_an_error_comes_in_the_place_of_its_result() -> None:
    results = map_in_threads(lambda number: 1 // number, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
