"""Base of the loaders of training batches, which go on where they ended."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from v2m.data.collate import Batch
from v2m.data.schema import Manifest

MAX_RETRIES = 32  # other samples that are tried in place of a corrupt one in training

logger = logging.getLogger(__name__)


class TrainingLoader(ABC):
    """Batches of one rank.

    `position` is that of the next batch in the order, over all ranks, in samples. `num_workers` processes read ahead;
    `pin_memory` places batches in page-locked memory, which a GPU copies faster.
    """

    num_workers: int
    pin_memory: bool
    position: int
    new_place = "the same sample"  # where a run goes on whose order is another

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """The manifest of the dataset."""

    @property
    @abstractmethod
    def step(self) -> int:
        """Number of positions that one batch of every rank takes; 0 where each pass begins anew."""

    @property
    @abstractmethod
    def order(self) -> Mapping[str, int]:
        """Values that decide the order, by their names."""

    @abstractmethod
    def batches(self) -> IterableDataset[Batch]:
        """Return the batches of one pass."""

    def __iter__(self) -> Iterator[Batch]:
        loader = DataLoader(
            self.batches(),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # leaves the random numbers of training alone
        )
        for batch in loader:
            self.position += self.step
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, **self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        differing = [name for name, value in self._fingerprint.items() if state.get(name) != value]
        if {"num_samples", "dataset"} & set(differing):
            logger.warning("other shards than before: the run goes on with them from its step, not from its sample")
        elif differing:
            logger.warning("another %s than before: the run goes on at %s", " and ".join(differing), self.new_place)
        position = int(state["position"])
        self.position = position - position % max(1, self.step)

    @property
    def _fingerprint(self) -> dict[str, Any]:
        shards = [(shard.file, shard.sha256) for shard in self.manifest.shards]
        return {**self.order, "dataset": hashlib.sha256(repr(shards).encode()).hexdigest()}
