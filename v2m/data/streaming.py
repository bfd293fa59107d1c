"""Training samples from shards at an address, as WebDataset streams, in an order that resumes exactly.

Each worker process of each rank reads one stream. In an epoch a stream has its part of the shards, shuffled anew, and
takes the next sample of one of up to `MIXED_SHARDS` open shards, chosen at random. This order depends on the seed and
on the numbers of ranks and workers alone. A resumed run counts how far each shard had been read, and opens again only
those that were open. Folders have the reader of `v2m.data.module`, whose order does not depend on the workers.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from tarfile import BLOCKSIZE, TarError
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

os.environ.setdefault("WDS_SECURE", "1")  # before it is imported: webdataset runs no command and unpickles nothing
from webdataset.tariterators import group_by_keys, tar_file_expander

from v2m.core import remote
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.remote import printable_address
from v2m.data.collate import Batch, Clip, CropCollator
from v2m.data.loader import MAX_RETRIES, TrainingLoader
from v2m.data.schema import MANIFEST, MEMBERS, Manifest
from v2m.data.shards import CorruptSampleError, OnCorrupt, Sample, decode, report_problems, size_problems

MIXED_SHARDS = 8
MAX_ATTEMPTS, RETRY_S = 4, 2.0  # to read on where a connection ends; the wait doubles
TAR_MAGIC = slice(257, 262)  # of an uncompressed tar, in its first block
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\0\0\x80", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, lzma, zstd

logger = logging.getLogger(__name__)


class NotATarError(ValueError):
    """A shard is damaged; the message says where."""


@dataclass(frozen=True)
class RemoteShards:
    """The shards of one or several datasets at addresses, each read from its start."""

    addresses: tuple[str, ...]  # of the shards
    manifest: Manifest
    on_corrupt: OnCorrupt = "refuse"

    @classmethod
    def open(cls, *addresses: str, on_corrupt: OnCorrupt = "refuse") -> RemoteShards:
        """Read the manifests, and compare the sizes of all shards with them.

        Raises DependencyError with all problems of a dataset where `on_corrupt` refuses them, InvalidInputError where
        an address cannot be read.
        """
        manifests: dict[str, Manifest] = {}
        for address in addresses:
            name = printable_address(address)
            manifest = Manifest.parse(remote.read_bytes(remote.join(address, MANIFEST)), name)
            prefix = f"{address.rstrip('/')}/"
            sizes = {file.address.removeprefix(prefix): file.size for file in remote.list_files(prefix)}
            report_problems(name, size_problems(name, manifest, sizes), on_corrupt)
            manifests[address] = manifest
        shards = [remote.join(address, shard.file) for address, each in manifests.items() for shard in each.shards]
        return cls(tuple(shards), Manifest.joined(manifests), on_corrupt)

    def __len__(self) -> int:
        return self.manifest.num_samples

    def samples(self, shard_number: int, first: int) -> Iterator[Mapping[str, bytes] | CorruptSampleError]:
        """Yield the members of each sample of a shard from the sample `first` on, or why it cannot be used.

        They are as many as the manifest says. Raises DependencyError for a damaged shard where it is refused, and where
        it cannot be reached again and again.
        """
        shard, address = self.manifest.shards[shard_number], self.addresses[shard_number]
        name, row, attempt = repr(printable_address(address)), first, 1
        problem = "it ends early"
        while row < shard.num_samples:
            begin = row
            try:
                for members in _read_tar(address, row):
                    yield members
                    row += 1
                    if row == shard.num_samples:
                        return
            except NotATarError as error:
                problem = str(error)
            except Exception as error:  # each service has its own types
                if isinstance(error, InvalidInputError) and error.reason == "missing":
                    problem = "it is missing"
                    break
                text = remote.error_summary(error, address)
                attempt = attempt + 1 if row == begin else 2
                if attempt > MAX_ATTEMPTS:
                    raise DependencyError(f"{name} cannot be read ({text}): run it again") from None
                logger.warning("%s: %s: it is tried again", name, text)
                time.sleep(RETRY_S * 2.0 ** (attempt - 2))
                continue
            break
        else:
            return
        message = f"{name} is damaged: {row} samples instead of {shard.num_samples} ({problem})"
        if self.on_corrupt == "refuse":
            raise DependencyError(f"{message}; copy it again, or go on without them: on_corrupt: skip")
        logger.warning(message)
        for lost in range(row, shard.num_samples):
            yield CorruptSampleError(f"{shard.file} lacks sample {lost}")


def _read_tar(address: str, first: int) -> Iterator[Mapping[str, bytes]]:
    """Yield the samples of a tar from `first` on. Raise NotATarError where it is none, or ends early."""
    with remote.open_file(address) as file:
        stream = BufferedReader(file)
        head = stream.peek(BLOCKSIZE)
        if head[TAR_MAGIC] != b"ustar" or head.startswith(COMPRESSED):  # a compressed tar may unpack to any size
            raise NotATarError("it is no plain tar")
        samples = group_by_keys(tar_file_expander([{"url": address, "stream": stream}]))
        try:
            for row, sample in enumerate(samples):
                if row >= first:
                    yield sample
        except Exception as error:
            own = (value for value in error.args if value is not stream and value != address)  # webdataset adds these
            error.args = tuple(own)
            if isinstance(error, TarError | ValueError):
                raise NotATarError(remote.error_summary(error, address)) from None
            raise


class Draw(NamedTuple):
    """A sample of a stream: its epoch, its shard and its number in the shard."""

    epoch: int
    shard: int
    row: int


@dataclass(frozen=True)
class StreamOrder:
    """Order of the samples of one of `num_streams` streams.

    `counts` are the numbers of samples of all shards.
    """

    counts: tuple[int, ...]
    seed: int = 0
    stream: int = 0
    num_streams: int = 1

    def shards(self, epoch: int) -> list[int]:
        """Return the numbers of the stream's shards in an epoch, shuffled."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.counts))
        return order[self.stream :: self.num_streams].tolist()

    def draws(self, first: int = 0) -> Iterator[Draw]:
        """Yield the samples without an end, from the sample `first` of the first epoch on."""
        epoch = 0
        while first >= (size := sum(self.counts[shard] for shard in self.shards(epoch))):
            first, epoch = first - size, epoch + 1
        while True:
            for number, draw in enumerate(self._epoch(epoch)):
                if number >= first:
                    yield draw
            first, epoch = 0, epoch + 1

    def _epoch(self, epoch: int) -> Iterator[Draw]:
        random = np.random.default_rng((self.seed, epoch, self.stream))
        waiting, rows = deque(self.shards(epoch)), Counter[int]()
        mixed = [waiting.popleft() for _ in range(min(MIXED_SHARDS, len(waiting)))]
        while mixed:
            place = int(random.integers(len(mixed)))
            shard = mixed[place]
            yield Draw(epoch, shard, rows[shard])
            rows[shard] += 1
            if rows[shard] == self.counts[shard]:
                mixed[place : place + 1] = [waiting.popleft()] if waiting else []


@dataclass
class StreamingLoader(TrainingLoader):
    """Training batches of one rank, from streams; it goes on in each pass where the last one ended.

    Raises UsageError where there are fewer shards than streams.
    """

    shards: RemoteShards
    collator: CropCollator
    batch_size: int
    seed: int = 0
    world_size: int = 1
    rank: int = 0
    num_workers: int = 0
    pin_memory: bool = False
    new_place: ClassVar[str] = "its step, in another order of the samples"
    position: int = 0  # of the next batch, over all ranks, in samples

    def __post_init__(self) -> None:
        num_streams, num_shards = self.world_size * max(1, self.num_workers), len(self.shards.manifest.shards)
        if num_streams > num_shards:
            problem = f"{num_shards} shards are too few for {self.world_size} ranks with {self.num_workers} workers"
            cure = "give a lower `data.num_workers`, or prepare with a lower `--shard-samples`"
            raise UsageError(f"{problem}: {cure}")

    def __len__(self) -> int:
        return max(1, len(self.shards) // self.step)

    @property
    def step(self) -> int:
        return self.batch_size * self.world_size

    @property
    def order(self) -> Mapping[str, int]:
        names = ("batch_size", "seed", "world_size", "num_workers")
        return {"num_samples": len(self.shards), **{name: getattr(self, name) for name in names}}

    @property
    def manifest(self) -> Manifest:
        return self.shards.manifest

    def batches(self) -> IterableDataset[Batch]:
        return _StreamDataset(self)


class _StreamDataset(IterableDataset[Batch]):
    """One pass of a loader; of N workers each makes every N-th batch, from its own stream."""

    def __init__(self, loader: StreamingLoader) -> None:
        self.shards, self.collator, self.batch_size = loader.shards, loader.collator, loader.batch_size
        self.first, self.num_batches = loader.position // loader.step, len(loader)
        counts = tuple(shard.num_samples for shard in loader.shards.manifest.shards)
        num_local = max(1, loader.num_workers)
        self.num_local, streams = num_local, loader.world_size * num_local
        self.new_order = partial(StreamOrder, counts, loader.seed, num_streams=streams)
        self.first_stream = loader.rank * num_local

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number = 0 if worker is None else worker.id
        stream = (self.first + number) % self.num_local  # DataLoader asks worker 0 first
        batches = range(self.first + number, self.first + self.num_batches, self.num_local)
        order = self.new_order(stream=self.first_stream + stream)
        yield from _StreamReader(self.shards, self.collator, order).batches(
            batches[0] // self.num_local * self.batch_size if batches else 0, len(batches), self.batch_size
        )


class _StreamReader:
    """The clips of one stream.

    A sample that cannot be used is replaced by the next one of the stream that can.
    """

    def __init__(self, shards: RemoteShards, collator: CropCollator, order: StreamOrder) -> None:
        self._shards, self._collator, self._order = shards, collator, order
        self._open: dict[tuple[int, int], Iterator[Mapping[str, bytes] | CorruptSampleError]] = {}
        self._ahead: deque[tuple[Draw, Sample | CorruptSampleError]] = deque()

    def batches(self, first: int, count: int, batch_size: int) -> Iterator[Batch]:
        """Yield `count` batches from the sample `first` of the stream on."""
        draws = self._order.draws(first)
        for _ in range(count):
            self._fill(draws, batch_size)
            chosen = [self._ahead.popleft() for _ in range(batch_size)]
            clips: list[Clip] = []
            num_skipped = 0
            for place, (draw, found) in enumerate(chosen):
                sample = found
                if isinstance(sample, CorruptSampleError):
                    logger.warning("skipped: %s", sample)
                    num_skipped += 1
                    sample = self._replacement(chosen[place + 1 :], draws, sample)
                random = np.random.default_rng((self._order.seed, *draw, 1))
                clips.append(self._collator.crop(sample, self._collator.crop_position(float(random.random()))))
            yield self._collator.collate(clips, num_skipped)

    def _replacement(
        self, later: list[tuple[Draw, Sample | CorruptSampleError]], draws: Iterator[Draw], error: CorruptSampleError
    ) -> Sample:
        for _, sample in later:
            if isinstance(sample, Sample):
                return sample
        for number in range(MAX_RETRIES):
            self._fill(draws, number + 1)
            sample = self._ahead[number][1]
            if isinstance(sample, Sample):
                return sample
        problem = f"{MAX_RETRIES} samples one after the other are bad, the first: {error}"
        raise DependencyError(f"{problem}; prepare them again")

    def _fill(self, draws: Iterator[Draw], count: int) -> None:
        while len(self._ahead) < count:
            draw = next(draws)
            self._ahead.append((draw, self._read(draw)))

    def _read(self, draw: Draw) -> Sample | CorruptSampleError:
        key = draw.epoch, draw.shard
        if key not in self._open:
            self._open[key] = self._shards.samples(draw.shard, draw.row)
        members = next(self._open[key])
        if draw.row + 1 == self._order.counts[draw.shard]:
            cast(Any, self._open.pop(key)).close()
        if isinstance(members, CorruptSampleError):
            return members
        absent = [name for name in MEMBERS if name not in members]
        if absent:
            return CorruptSampleError(f"sample {draw.row} of shard {draw.shard} has no {', '.join(absent)}")
        try:
            return decode(members, self._shards.manifest)
        except CorruptSampleError as error:
            return error
