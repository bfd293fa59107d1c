"""Sample order as a pure function of the seed and the step, so that training resumes at any step.

Training reads an endless sequence of epochs, each a permutation of all samples. The state of a run is the position in
it; neither workers nor what was read before have a part in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class SampleIndex(NamedTuple):
    """A sample of the dataset and the epoch in which it comes up. Sample −1 only fills a batch."""

    sample: int
    epoch: int


@dataclass(frozen=True)
class ResumableSampler:
    """Batches of `batch_size` of `num_samples` samples for each of `world_size` ranks."""

    num_samples: int
    batch_size: int
    seed: int = 0
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        assert self.num_samples > 0, "a dataset without samples has no order"
        assert 0 <= self.rank < self.world_size

    @property
    def global_batch_size(self) -> int:
        """Number of positions that one batch of every rank takes."""
        return self.batch_size * self.world_size

    def train_batch_at(self, position: int) -> list[SampleIndex]:
        """Return this rank's batch, where the batches of all ranks together start at `position`."""
        first = position + self.rank * self.batch_size
        return [self._sample_at(first + k) for k in range(self.batch_size)]

    def eval_batches(self) -> Iterator[list[SampleIndex]]:
        """Yield this rank's batches of one pass: over all ranks each sample once, as many on every rank."""
        for start in range(0, self.num_samples, self.global_batch_size):
            indices = range(start + self.rank, start + self.global_batch_size, self.world_size)
            yield [SampleIndex(k if k < self.num_samples else -1, 0) for k in indices]

    def _sample_at(self, position: int) -> SampleIndex:
        epoch, k = divmod(position, self.num_samples)
        return SampleIndex(int(_permutation(self.num_samples, self.seed, epoch)[k]), epoch)


@lru_cache(maxsize=2)  # a batch may reach from one epoch into the next
def _permutation(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_samples)
