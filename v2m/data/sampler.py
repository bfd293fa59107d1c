"""Which samples make up which batch: a function of the seed and the step alone.

Training takes samples from an endless row of laps, each of which holds all of them in an order of its own. Where a run
stands is one number, the position in that row; neither workers nor what was read before have a part in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class SampleIndex(NamedTuple):
    """A sample of the dataset, and in which lap it comes up. Sample −1 only fills a batch."""

    sample: int
    lap: int


@dataclass(frozen=True)
class ResumableSampler:
    """Of `samples` samples, in batches of `batch` for each of `world` ranks."""

    samples: int
    batch: int
    seed: int = 0
    world: int = 1
    rank: int = 0
    shuffled: bool = field(default=True)

    def __post_init__(self) -> None:
        assert self.samples > 0, "a dataset without samples has no order"
        assert 0 <= self.rank < self.world

    @property
    def step(self) -> int:
        """How many positions one batch of every rank takes."""
        return self.batch * self.world

    def endless(self, position: int) -> list[SampleIndex]:
        """The batch of this rank where all ranks' batches begin at `position`; ranks share no position."""
        first = position + self.rank * self.batch
        return [self._place(first + k) for k in range(self.batch)]

    def once(self) -> Iterator[list[SampleIndex]]:
        """Batches of this rank in which, over all ranks, each sample comes once, in order; as many on every rank."""
        for begin in range(0, self.samples, self.step):
            own = range(begin + self.rank, begin + self.step, self.world)
            yield [SampleIndex(k if k < self.samples else -1, 0) for k in own]

    def _place(self, position: int) -> SampleIndex:
        lap, k = divmod(position, self.samples)
        return SampleIndex(int(_permutation(self.samples, self.seed, lap)[k]) if self.shuffled else k, lap)


@lru_cache(maxsize=2)  # a batch may reach from one lap into the next
def _permutation(samples: int, seed: int, lap: int) -> np.ndarray:
    return np.random.default_rng((seed, lap)).permutation(samples)
