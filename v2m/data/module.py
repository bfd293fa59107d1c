"""Lightning data modules: shards, for training and validation, and videos, for prediction."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from v2m.core.atomic import name_outputs
from v2m.core.errors import DependencyError, UsageError
from v2m.data.collate import Batch, Clip, CropCollator
from v2m.data.sampler import ResumableSampler, SampleIndex
from v2m.data.schema import Manifest
from v2m.data.shards import CorruptSampleError, OnCorrupt, ShardReader, decode
from v2m.data.sources import discover_videos
from v2m.media.video import VIDEO_SUFFIXES

COMPARED_FIELDS = [f.name for f in fields(Manifest) if f.name not in {"tagger", "shards", "dropped", "version"}]
MAX_RETRIES = 32  # other samples that are tried in place of a corrupt one in training

logger = logging.getLogger(__name__)


@dataclass
class ResumableLoader:
    """Batches of one rank. An `endless` loader goes on in each pass where the last one ended."""

    shards: ShardReader
    collator: CropCollator
    index_sampler: ResumableSampler  # order of the samples; Lightning would inspect an attribute named `sampler`
    endless: bool  # for training
    num_workers: int = 0  # processes that read ahead; the batches are the same with any number
    pin_memory: bool = False  # places batches in page-locked memory, which a GPU copies faster
    position: int = 0  # of the next batch in the order, over all ranks

    def __len__(self) -> int:
        samples, step = self.index_sampler.num_samples, self.index_sampler.global_batch_size
        return max(1, samples // step) if self.endless else -(-samples // step)

    def __iter__(self) -> Iterator[Batch]:
        step = self.index_sampler.global_batch_size if self.endless else 0
        loader = DataLoader(
            _BatchDataset(self, self.position // step if step else 0),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # leaves the random numbers of training alone
        )
        for batch in loader:
            self.position += step
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, **self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        differing = [name for name, value in self._fingerprint.items() if state.get(name) != value]
        if {"num_samples", "dataset"} & set(differing):
            logger.warning("other shards than before: the run goes on with them from its step, not from its sample")
        elif differing:
            logger.warning("another %s than before: the run goes on at the same sample", " and ".join(differing))
        position, step = int(state["position"]), self.index_sampler.global_batch_size
        self.position = position - position % step

    @property
    def _fingerprint(self) -> dict[str, Any]:
        names = ("num_samples", "batch_size", "seed", "world_size")
        order = {name: getattr(self.index_sampler, name) for name in names}
        shards = [(shard.file, shard.sha256) for shard in self.shards.manifest.shards]
        return {**order, "dataset": hashlib.sha256(repr(shards).encode()).hexdigest()}


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


class VideoJob(NamedTuple):
    """A video, the folder of its outputs, a file of known tags, and the outputs' path up to `.v2m`."""

    video: Path
    folder: Path
    tags: Path | None = None
    duplicate_of: str | None = None  # name of an earlier video whose tags would have the same name
    out: Path = Path()


@dataclass(frozen=True)
class VideoJobs:
    """The jobs of one rank in batches of one; all ranks have as many batches, the last may be empty."""

    jobs: tuple[VideoJob, ...]
    world_size: int = 1
    rank: int = 0

    @classmethod
    def from_inputs(
        cls, videos: Path | Sequence[Path] | None, out: Path | None, trainer: lightning.Trainer | None
    ) -> VideoJobs:
        """Collect all videos in folders, in their subfolders, and in VidMuse's lists.

        Outputs go into the same subfolders of `out`, or else beside each video. Raises InvalidInputError where there is
        no video, UsageError where none is given, one does not exist, or `out` is a file.
        """
        if not videos:
            raise UsageError("name the videos: give `data.videos`, a folder, a file or a list of them")
        if out is not None and not out.is_dir() and (out.exists() or out.suffix.lower() in VIDEO_SUFFIXES):
            raise UsageError(f"`data.out` {str(out)!r} names a file: give a folder")
        first: dict[tuple[Path, str], Path] = {}
        jobs: list[VideoJob] = []
        inputs = [videos] if isinstance(videos, str | Path) else videos
        for source in discover_videos([Path(path) for path in inputs]):
            parts = Path(source.name).parent.parts  # absolute or above, if a list says so
            below = [part for part in parts if part not in {"/", ".."}]
            folder = source.video.parent if out is None else out.joinpath(*below)
            earlier = first.setdefault((folder, source.video.stem), source.video)
            jobs.append(VideoJob(source.video, folder, source.tags, None if earlier is source.video else earlier.name))
        names = name_outputs({job.video: job.folder for job in jobs})
        jobs = [job._replace(out=names[job.video]) for job in jobs]
        world_size, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        return cls(tuple(jobs), world_size, rank)

    def __len__(self) -> int:
        return math.ceil(len(self.jobs) / self.world_size)

    def __iter__(self) -> Iterator[list[VideoJob]]:
        for index in range(self.rank, len(self) * self.world_size, self.world_size):
            yield list(self.jobs[index : index + 1])


class ShardData(lightning.LightningDataModule):
    """Folders of shards from `v2m prepare`; for `predict`, videos.

    Args:
        train: Folder of training data; only `predict` needs none.
        validation: Folder of validation data; None validates nothing.
        test: Folder of test data; None is that of validation.
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
        train: Path | None = None,
        validation: Path | None = None,
        test: Path | None = None,
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
        folders = {"fit": train, "validate": validation, "test": test or validation}
        self._folders = {stage: folder and Path(folder) for stage, folder in folders.items()}
        self.batch_size, self.window, self.edge_share = batch_size, window, edge_share
        self.num_workers, self.seed = num_workers, seed
        self._on_corrupt: OnCorrupt = on_corrupt
        self._verify_hashes = verify_hashes
        self._shards: dict[Path, ShardReader] = {}
        self._videos, self._out = videos, out

    @property
    def manifest(self) -> Manifest:
        """The manifest of the training shards. Raise UsageError where none are given."""
        if self._folders["fit"] is None:
            raise UsageError("there is nothing to learn from: give `data.train`, a folder of prepared videos")
        return self._open(self._folders["fit"]).manifest

    def setup(self, stage: str) -> None:
        """Open the shards. Raise DependencyError where they are missing, damaged or prepared differently."""
        if stage == "predict":
            return
        own = self.manifest
        for folder in {folder for folder in self._folders.values() if folder is not None}:
            other = self._open(folder).manifest
            differing = [name for name in COMPARED_FIELDS if getattr(own, name) != getattr(other, name)]
            if differing:
                problem = f"{str(folder)!r} was prepared with another {', '.join(differing)}"
                raise DependencyError(f"{problem} than {str(self._folders['fit'])!r}: prepare both alike")

    def train_dataloader(self) -> ResumableLoader:
        return self._loader(self._folders["fit"], endless=True)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        folder = self._folders["validate"]
        return [] if folder is None else self._loader(folder, endless=False)

    def test_dataloader(self) -> ResumableLoader:
        folder = self._folders["test"]
        if folder is None:
            raise UsageError("there is nothing to test on: give `data.test`, the folder of prepared videos")
        return self._loader(folder, endless=False)

    def predict_dataloader(self) -> VideoJobs:
        return VideoJobs.from_inputs(self._videos, self._out, self.trainer)

    def _loader(self, folder: Path | None, *, endless: bool) -> ResumableLoader:
        shards, trainer = self._open(folder), self.trainer
        world, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        sampler = ResumableSampler(len(shards), self.batch_size, self.seed, world, rank)
        collator, pin_memory = CropCollator(shards.manifest, self.window, self.edge_share), torch.cuda.is_available()
        return ResumableLoader(shards, collator, sampler, endless, self.num_workers, pin_memory)

    def _open(self, folder: Path | None) -> ShardReader:
        assert folder is not None
        if folder not in self._shards:
            reader = ShardReader(folder, on_corrupt=self._on_corrupt, verify_hashes=self._verify_hashes)
            self._shards[folder] = reader
        return self._shards[folder]


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
