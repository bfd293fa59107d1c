"""Lightning data modules: shards, for training and validation, and videos, for prediction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from v2m.core.errors import DependencyError, UsageError
from v2m.core.remote import is_address, printable_address
from v2m.data.collate import Batch, Clip, CropCollator
from v2m.data.loader import MAX_RETRIES, TrainingLoader
from v2m.data.remote_dataset import copy_dataset
from v2m.data.sampler import ResumableSampler, SampleIndex
from v2m.data.schema import Manifest
from v2m.data.shards import CorruptSampleError, OnCorrupt, ShardReader, decode
from v2m.data.streaming import RemoteShards, StreamingLoader
from v2m.data.video_jobs import VideoJobs

logger = logging.getLogger(__name__)


@dataclass
class ResumableLoader(TrainingLoader):
    """Batches of one rank from folders.

    An `endless` loader goes on in each pass where the last one ended.
    """

    shards: ShardReader
    collator: CropCollator
    index_sampler: ResumableSampler  # order of the samples; Lightning would inspect an attribute named `sampler`
    endless: bool  # for training
    num_workers: int = 0  # the batches are the same with any number
    pin_memory: bool = False
    position: int = 0

    def __len__(self) -> int:
        samples, step = self.index_sampler.num_samples, self.index_sampler.global_batch_size
        return max(1, samples // step) if self.endless else -(-samples // step)

    @property
    def manifest(self) -> Manifest:
        return self.shards.manifest

    @property
    def step(self) -> int:
        return self.index_sampler.global_batch_size if self.endless else 0

    @property
    def order(self) -> Mapping[str, int]:
        return {name: getattr(self.index_sampler, name) for name in ("num_samples", "batch_size", "seed", "world_size")}

    def batches(self) -> IterableDataset[Batch]:
        return _BatchDataset(self, self.position // self.step if self.step else 0)


class _BatchDataset(IterableDataset[Batch]):
    """One pass of a loader from its batch `first` on; of several workers each makes every n-th batch."""

    def __init__(self, loader: ResumableLoader, first: int) -> None:
        self.shards, self.collator, self.sampler = loader.shards, loader.collator, loader.index_sampler
        self.batches = range(first, first + len(loader))
        self.eval_batches = None if loader.endless else list(self.sampler.eval_batches())

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for k in self.batches[start::step]:  # DataLoader restores the order
            if self.eval_batches is not None:
                clips = [self._eval_clip(index) for index in self.eval_batches[k]]
            else:
                indices = self.sampler.train_batch_at(k * self.sampler.global_batch_size)
                clips = [self._train_clip(index) for index in indices]
            yield self.collator.collate([clip for clip, _ in clips], sum(skipped for _, skipped in clips))

    def _eval_clip(self, index: SampleIndex) -> tuple[Clip, int]:
        """Return the start of a sample, or an empty clip for a corrupt one; and the number of samples skipped."""
        if index.sample < 0:
            return self.collator.empty_clip(), 0
        try:
            return self._read_clip(index.sample, 0.0), 0
        except CorruptSampleError as error:
            logger.warning("skipped: %s", error)
            return self.collator.empty_clip(), 1

    def _train_clip(self, index: SampleIndex) -> tuple[Clip, int]:
        """Return a random crop, replacing corrupt samples, and the number of samples skipped."""
        random = np.random.default_rng((self.sampler.seed, index.epoch, index.sample, 1))
        number, message = index.sample, ""
        for num_skipped in range(MAX_RETRIES):
            try:
                return self._read_clip(number, self.collator.crop_position(float(random.random()))), num_skipped
            except CorruptSampleError as error:
                message = str(error)
                logger.warning("skipped: %s", message)
                number = int(random.integers(len(self.shards)))
        problem = f"{MAX_RETRIES} samples one after the other are bad, the last: {message}"
        raise DependencyError(f"{problem}; prepare them again")

    def _read_clip(self, number: int, position: float) -> Clip:
        return self.collator.crop(decode(self.shards.read_members(number), self.shards.manifest), position)


class ShardData(lightning.LightningDataModule):
    """Folders or addresses of shards from `v2m prepare`; for `predict`, videos.

    Args:
        train: Folder or address of training data, or a list of some, all prepared alike; an address is streamed. Only
            `predict` needs none.
        validation: Folder of validation data, or address from which it is copied first; None validates nothing.
        test: Folder or address of test data; None is that of validation.
        batch_size: Clips of one step on one device.
        window: Seconds of a clip.
        edge_share: Share of the clips, 0 to 1, that begin or end with their video: without it, few long ones do.
        num_workers: Processes that read.
        seed: Seed of the order and of the crops.
        on_corrupt: Handling of a damaged shard: "refuse" it, or "skip" the samples it lacks.
        verify_hashes: Whether the shards' SHA-256 are compared first, which reads all of them.
        videos: Videos that `predict` writes music for: folders, also of folders; videos; VidMuse's lists (.jsonl).
        out: Folder for the videos with music; None is beside each.
    """

    def __init__(
        self,
        train: list[str] | str | Path | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        *,
        batch_size: int = 8,
        window: float = 30.0,
        edge_share: float = 0.0,
        num_workers: int = 4,
        seed: int = 0,
        on_corrupt: OnCorrupt = "refuse",
        verify_hashes: bool = False,
        videos: list[Path] | Path | None = None,
        out: Path | None = None,
    ) -> None:
        super().__init__()
        problems = [] if batch_size >= 1 else [f"batch_size {batch_size} must be 1 or more"]
        problems += [] if window > 0 else [f"window {window:g} must be more than 0"]
        problems += [] if 0 <= edge_share <= 1 else [f"edge_share {edge_share:g} must lie within 0 and 1"]
        problems += [] if num_workers >= 0 else [f"num_workers {num_workers} must be 0 or more"]
        if problems:
            raise UsageError("data: " + "; ".join(problems))
        self._train = [str(place) for place in (train if isinstance(train, list) else [train]) if place is not None]
        self._validation, self._test = validation, test or validation
        if len({*map(is_address, self._train)}) > 1:
            raise UsageError("data.train: some are folders and some are addresses: give one kind")
        self.batch_size, self.window, self.edge_share = batch_size, window, edge_share
        self.num_workers, self.seed = num_workers, seed
        self._on_corrupt: OnCorrupt = on_corrupt
        self._verify_hashes = verify_hashes
        self._shards: dict[tuple[str, ...], ShardReader] = {}
        self._stream: RemoteShards | None = None
        self._videos, self._out = videos, out

    @property
    def manifest(self) -> Manifest:
        """The manifest of the training shards. Raise UsageError where none are given."""
        return self._open_train().manifest

    def setup(self, stage: str) -> None:
        """Open the shards. Raise DependencyError where they are missing, damaged or prepared differently."""
        if stage == "predict":
            return
        own, name = self.manifest, printable_address(self._train[0])
        for place in {self._validation, self._test} - {None}:
            assert place is not None
            own.check_same(self._open(str(place)).manifest, name, printable_address(str(place)))

    def train_dataloader(self) -> TrainingLoader:
        shards, (world, rank) = self._open_train(), self._ranks
        if isinstance(shards, ShardReader):
            return self._loader(shards, endless=True)
        sizes = self.batch_size, self.seed, world, rank, self.num_workers
        return StreamingLoader(shards, self._collator(shards.manifest), *sizes, torch.cuda.is_available())

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        return [] if self._validation is None else self._loader(self._open(str(self._validation)), endless=False)

    def test_dataloader(self) -> ResumableLoader:
        if self._test is None:
            raise UsageError("there is nothing to test on: give `data.test`, the folder of prepared videos")
        return self._loader(self._open(str(self._test)), endless=False)

    def predict_dataloader(self) -> VideoJobs:
        return VideoJobs.from_inputs(self._videos, self._out, self.trainer)

    @property
    def _ranks(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _loader(self, shards: ShardReader, *, endless: bool) -> ResumableLoader:
        sampler = ResumableSampler(len(shards), self.batch_size, self.seed, *self._ranks)
        pin_memory = torch.cuda.is_available()
        return ResumableLoader(shards, self._collator(shards.manifest), sampler, endless, self.num_workers, pin_memory)

    def _collator(self, manifest: Manifest) -> CropCollator:
        return CropCollator(manifest, self.window, self.edge_share)

    def _open_train(self) -> ShardReader | RemoteShards:
        if not self._train:
            raise UsageError("there is nothing to learn from: give `data.train`, a folder of prepared videos")
        if not is_address(self._train[0]):
            return self._open(*self._train)
        if self._verify_hashes:
            raise UsageError("`data.verify_hashes` reads all shards, and those of an address are streamed: copy them")
        if self._stream is None:
            self._stream = RemoteShards.open(*self._train, on_corrupt=self._on_corrupt)
        return self._stream

    def _open(self, *places: str) -> ShardReader:
        """Open folders, or copies of what is at addresses."""
        if places not in self._shards:
            folders = [copy_dataset(place) if is_address(place) else Path(place) for place in places]
            options = {"on_corrupt": self._on_corrupt, "verify_hashes": self._verify_hashes}
            self._shards[places] = ShardReader(*folders, **options)
        return self._shards[places]


def attached_shards(trainer: lightning.Trainer) -> ShardData | None:
    """Return the data module of a run where it reads shards, else None."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data if isinstance(data, ShardData) else None


class VideoDataModule(lightning.LightningDataModule):
    """Lightning data module of videos.

    Args:
        videos: Folders of videos, also of folders; videos; VidMuse's lists (.jsonl).
        out: Folder for the outputs; None is beside each.
    """

    def __init__(self, videos: list[Path] | Path, out: Path | None = None) -> None:
        super().__init__()
        self._videos, self._out = videos, out

    def predict_dataloader(self) -> VideoJobs:
        return VideoJobs.from_inputs(self._videos, self._out, self.trainer)
