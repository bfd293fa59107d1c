"""Shards for Lightning: batches of training without end, and of validation each sample once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from v2m.core.errors import DependencyError, UsageError
from v2m.data.collate import Batch, Clip, CropCollator
from v2m.data.predict_data import VideoJobs
from v2m.data.sampler import ResumableSampler, SampleIndex
from v2m.data.samples import decode
from v2m.data.schema import Manifest
from v2m.data.shards import CorruptSampleError, OnCorrupt, ShardReader

COMPARED_FIELDS = [
    each.name for each in fields(Manifest) if each.name not in {"tagger", "shards", "dropped", "version"}
]
MAX_RETRIES = 32  # other samples that are tried in the place of a bad one of training

logger = logging.getLogger(__name__)


class _BatchDataset(IterableDataset[Batch]):
    """Batches `begin` to `end`, those of this worker: DataLoader puts them in order again."""

    def __init__(self, make: Callable[[int], Batch], begin: int, end: int) -> None:
        self.make, self.begin, self.end = make, begin, end

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for k in range(self.begin + first, self.end, step):
            yield self.make(k)


@dataclass
class ResumableLoader:
    """Batches of one rank. With `endless` each pass goes on where the last ended, `passes` batches further on.

    Args:
        shards: Where samples come from.
        collator: Makes clips of them.
        index_sampler: Which samples when; Lightning inspects an attribute named `sampler`.
        endless: Whether this is for training.
        workers: Processes that read ahead; the batches are the same with any number.
        pin: Whether batches are put where a GPU copies them from quickest.
    """

    shards: ShardReader
    collator: CropCollator
    index_sampler: ResumableSampler
    endless: bool
    num_workers: int = 0
    pin_memory: bool = False
    position: int = 0  # of the next batch, over all ranks

    def __len__(self) -> int:
        """Batches of a pass."""
        samples, step = self.index_sampler.num_samples, self.index_sampler.global_batch_size
        return max(1, samples // step) if self.endless else -(-samples // step)

    def __iter__(self) -> Iterator[Batch]:
        begin = self.position // self.index_sampler.global_batch_size if self.endless else 0
        once = None if self.endless else list(self.index_sampler.eval_batches())
        dataset = _BatchDataset(
            _BatchBuilder(self.shards, self.collator, self.index_sampler, once), begin, begin + len(self)
        )
        loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # leaves the random numbers of training alone
        )
        for batch in loader:
            self.position += self.index_sampler.global_batch_size if self.endless else 0
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Lightning asks for it with every checkpoint."""
        return {"position": self.position, **self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        differing = [name for name, value in self._fingerprint.items() if state.get(name) != value]
        if {"num_samples", "dataset"} & set(differing):
            logger.warning("other shards than before: the run goes on with them from its step, not from its sample")
        elif differing:
            logger.warning("another %s than before: the run goes on at the same sample", " and ".join(differing))
        self.position = (
            int(state["position"]) // self.index_sampler.global_batch_size * self.index_sampler.global_batch_size
        )

    @property
    def _fingerprint(self) -> dict[str, Any]:
        order = asdict(self.index_sampler)
        kept = {name: order[name] for name in ("num_samples", "batch_size", "seed", "world_size")}
        about = [(shard.file, shard.sha256) for shard in self.shards.manifest.shards]
        return {**kept, "dataset": hashlib.sha256(repr(about).encode()).hexdigest()}


@dataclass(frozen=True)
class _BatchBuilder:
    shards: ShardReader
    collator: CropCollator
    index_sampler: ResumableSampler
    eval_batches: list[list[SampleIndex]] | None  # None makes batches of training

    def __call__(self, k: int) -> Batch:
        if self.eval_batches is not None:
            found = [self._eval_clip(place) for place in self.eval_batches[k]]
        else:
            found = [
                self._train_clip(place)
                for place in self.index_sampler.train_batch_at(k * self.index_sampler.global_batch_size)
            ]
        return self.collator.collate([clip for clip, _ in found], sum(bad for _, bad in found))

    def _eval_clip(self, place: SampleIndex) -> tuple[Clip, int]:
        """From the begin; of a bad sample nothing."""
        try:
            return (self._read(place.sample, 0.0) if place.sample >= 0 else self.collator.empty_clip()), 0
        except CorruptSampleError as error:
            logger.warning("skipped: %s", error)
            return self.collator.empty_clip(), 1

    def _train_clip(self, place: SampleIndex) -> tuple[Clip, int]:
        """From anywhere; in the place of a bad sample another one."""
        random = np.random.default_rng((self.index_sampler.seed, place.epoch, place.sample, 1))
        number, said = place.sample, ""
        for bad in range(MAX_RETRIES):
            try:
                return self._read(number, float(random.random())), bad
            except CorruptSampleError as error:
                said = str(error)
                logger.warning("skipped: %s", said)
                number = int(random.integers(len(self.shards)))
        raise DependencyError(
            f"{MAX_RETRIES} samples one after the other are bad, the last: {said}; prepare them again"
        )

    def _read(self, number: int, position: float) -> Clip:
        return self.collator.crop(decode(self.shards.read_members(number), self.shards.manifest), position)


class ShardData(lightning.LightningDataModule):
    """Folders that `v2m prepare` made; for `predict`, videos as they are.

    Args:
        train: Folder to learn from; only `predict` does without.
        validation: Folder to measure on while training; None measures nothing.
        test: Folder to measure on with `test`; None is that of validation.
        batch: Clips of one step on one device.
        window: Seconds of a clip.
        workers: Processes that read.
        seed: Of the order and of where clips begin.
        damaged: What is done about a damaged shard: "refuse", or "skip" what it lacks.
        hashes: Whether the shards' SHA-256 are compared first, which reads all of them.
        videos: What `predict` writes music for: folders of videos, which may lie in folders below them; videos;
            VidMuse's lists (.jsonl).
        out: Folder for the videos with music; None is beside each.
    """

    def __init__(
        self,
        train: Path | None = None,
        validation: Path | None = None,
        test: Path | None = None,
        *,
        batch_size: int = 8,
        window: float = 30.0,
        num_workers: int = 4,
        seed: int = 0,
        on_corrupt: OnCorrupt = "refuse",
        verify_hashes: bool = False,
        videos: list[Path] | Path | None = None,
        out: Path | None = None,
    ) -> None:
        super().__init__()
        problems = [f"batch_size {batch_size} must be 1 or more"] * (batch_size < 1)
        problems += [f"window {window:g} must be more than 0"] * (not window > 0)
        problems += [f"num_workers {num_workers} must be 0 or more"] * (num_workers < 0)
        if problems:
            raise UsageError("data: " + "; ".join(problems))
        folders = {"fit": train, "validate": validation, "test": test or validation}
        self._folders = {stage: folder and Path(folder) for stage, folder in folders.items()}
        self.batch_size, self.window, self.num_workers, self.seed = batch_size, window, num_workers, seed
        self._reader_options = {"on_corrupt": on_corrupt, "verify_hashes": verify_hashes}
        self._shards: dict[Path, ShardReader] = {}
        self._videos, self._out = videos, out

    @property
    def manifest(self) -> Manifest:
        """Manifest of the shards; validation shards must match it. Raises UsageError where none are given."""
        if self._folders["fit"] is None:
            raise UsageError("there is nothing to learn from: give --data.train, a folder of prepared videos")
        return self._open(self._folders["fit"]).manifest

    def setup(self, stage: str) -> None:
        """Raises DependencyError where shards are missing, damaged, or differ in what their numbers mean."""
        if stage == "predict":
            return
        own = self.manifest
        for folder in {each for each in self._folders.values() if each is not None}:
            other = self._open(folder).manifest
            differing = [name for name in COMPARED_FIELDS if getattr(own, name) != getattr(other, name)]
            if differing:
                raise DependencyError(
                    f"{str(folder)!r} was prepared with another {', '.join(differing)} than "
                    f"{str(self._folders['fit'])!r}: prepare both alike"
                )

    def train_dataloader(self) -> ResumableLoader:
        return self._loader(self._folders["fit"], endless=True)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        folder = self._folders["validate"]
        return [] if folder is None else self._loader(folder, endless=False)

    def test_dataloader(self) -> ResumableLoader:
        folder = self._folders["test"]
        if folder is None:
            raise UsageError("there is nothing to test on: give --data.test, the folder of prepared videos")
        return self._loader(folder, endless=False)

    def predict_dataloader(self) -> VideoJobs:
        return VideoJobs.from_inputs(self._videos, self._out, self.trainer)

    def _loader(self, folder: Path | None, *, endless: bool) -> ResumableLoader:
        shards, trainer = self._open(folder), self.trainer
        world, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        sampler = ResumableSampler(len(shards), self.batch_size, self.seed, world, rank)
        return ResumableLoader(
            shards,
            CropCollator(shards.manifest, self.window),
            sampler,
            endless,
            self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _open(self, folder: Path | None) -> ShardReader:
        assert folder is not None
        if folder not in self._shards:
            self._shards[folder] = ShardReader(folder, **self._reader_options)
        return self._shards[folder]
