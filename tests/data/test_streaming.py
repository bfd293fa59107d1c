"""Training from an address: each sample once an epoch, resumed exactly, and damaged shards as in a folder."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import fsspec
import pytest
import torch

from tests.data.test_module import same, spoil
from tests.fixtures.tiny import shards as made
from v2m.core import remote
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.data import streaming
from v2m.data.collate import Batch
from v2m.data.module import ResumableLoader, ShardData
from v2m.data.schema import FRAMES, MANIFEST, Manifest
from v2m.data.streaming import StreamingLoader, StreamOrder

COUNTS = (5, 4, 3, 6)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a dataset of `COUNTS` samples in its shards."""
    yield upload(made.write(tmp_path, COUNTS))
    fsspec.filesystem("memory").rm("/", recursive=True)


def upload(folder: Path, address: str = "memory://bucket/shards") -> str:
    for path in folder.iterdir():
        remote.write_file(path, remote.join(address, path.name))
    return address


def replace(address: str, name: str, change: Callable[[bytes], bytes]) -> None:
    path = f"{address}/{name}"
    fsspec.filesystem("memory").pipe_file(path, change(remote.read_bytes(path)))


def loader(
    address: str,
    *,
    batch: int = 2,
    workers: int = 0,
    world: int = 1,
    rank: int = 0,
    on_corrupt: Literal["refuse", "skip"] = "refuse",
) -> StreamingLoader:
    data = ShardData(address, batch_size=batch, window=3.0, num_workers=workers, on_corrupt=on_corrupt)
    data.setup("fit")
    batches = data.train_dataloader()
    assert isinstance(batches, StreamingLoader)
    batches.world_size, batches.rank = world, rank
    return batches


def keys(batches: Iterator[Batch] | list[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


@pytest.mark.parametrize("num_streams", [1, 2, 4])
def test_all_streams_together_have_each_sample_once_an_epoch(num_streams: int) -> None:
    counts = tuple(3 + k % 5 for k in range(23))
    expected = {(shard, row) for shard, count in enumerate(counts) for row in range(count)}
    found: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    for stream in range(num_streams):
        for draw in StreamOrder(counts, 7, stream, num_streams).draws():
            if draw.epoch == 2:
                break
            found[draw.epoch].append(draw[1:])
    assert all(set(lap) == expected for lap in found.values())
    assert all(len(lap) == len(expected) for lap in found.values())
    assert found[0] != found[1]


def test_neighbors_in_a_stream_come_from_different_shards() -> None:
    draws = list(islice(StreamOrder((50,) * 40).draws(), 2000))
    changes = sum(one.shard != two.shard for one, two in pairwise(draws))
    assert changes / len(draws) > 0.8


@pytest.mark.parametrize("first", [1, 4, 17, 18, 19, 100])
def test_an_order_from_a_later_sample_on_is_the_rest_of_the_whole(first: int) -> None:
    order = StreamOrder(COUNTS, 3, 1, 2)
    assert list(islice(order.draws(first), 30)) == list(islice(order.draws(), first + 30))[first:]


def test_a_pass_has_each_sample_once(address: str) -> None:
    assert Counter(keys(list(loader(address)))) == Counter(f"sample{k:04d}" for k in range(sum(COUNTS)))


def test_several_addresses_are_one_dataset(address: str, tmp_path: Path) -> None:
    more = upload(made.write(tmp_path / "more", (3, 2), first=18), "memory://bucket/more")
    data = ShardData([address, more], batch_size=1, window=3.0, num_workers=0)
    data.setup("fit")
    assert Counter(keys(list(data.train_dataloader()))) == Counter(f"sample{k:04d}" for k in range(23))


def test_crops_are_those_of_the_samples_of_a_folder(address: str, tmp_path: Path) -> None:
    data = ShardData(tmp_path, batch_size=1, window=8.0, num_workers=0)
    data.setup("fit")
    local = {batch.keys[0]: batch for batch in data.train_dataloader()}
    data = ShardData(address, batch_size=1, window=8.0, num_workers=0)
    data.setup("fit")
    streamed = list(data.train_dataloader())
    assert len(streamed) == sum(COUNTS)
    assert all(same(batch, local[batch.keys[0]]) for batch in streamed)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 12])
def test_resumed_batches_equal_those_of_an_uninterrupted_run(address: str, workers: int, stop: int) -> None:
    first = loader(address, workers=workers)
    whole = [*first, *first]
    cut = loader(address, workers=workers)
    for _ in range(stop // len(cut)):
        list(cut)
    for _, _batch in zip(range(stop % len(cut)), cut, strict=False):
        pass
    again = loader(address, workers=workers)
    again.load_state_dict(cut.state_dict())
    gone_on = [*again, *again]
    assert len(whole) == len(gone_on) == 18
    assert all(same(one, two) for one, two in zip(whole[stop:], gone_on, strict=False))


def test_ranks_and_workers_have_disjoint_samples(address: str) -> None:
    found = Counter[str]()
    for rank in range(2):
        order = loader(address, batch=1, world=2, rank=rank, workers=2)
        found.update(islice(keys(list(order)), sum(COUNTS) // 2))
    # Streams have 3 to 6 samples each in this epoch, and go on with the next one.
    assert max(found.values()) <= 2
    assert len(found) > sum(COUNTS) // 2


def test_resuming_with_other_workers_warns(address: str, caplog: pytest.LogCaptureFixture) -> None:
    state = {**loader(address).state_dict(), "position": 8}
    with caplog.at_level(logging.WARNING, "v2m"):
        other = loader(address, workers=2)
        other.load_state_dict(state)
    assert "another num_workers than before: the run goes on at its step, in another order" in caplog.text
    assert other.position == 8


def test_fewer_shards_than_streams_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="4 shards are too few for 1 ranks with 5 workers: give a lower"):
        loader(address, workers=5)


def cut_end(content: bytes) -> bytes:
    return content[: len(content) // 2] + b"\xff" * (len(content) - len(content) // 2)


def test_a_damaged_shard_is_refused_or_its_samples_are_left_out(address: str, caplog: pytest.LogCaptureFixture) -> None:
    replace(address, "00000.tar", cut_end)
    with pytest.raises(
        DependencyError, match=r"'memory://bucket/shards/00000.tar' is damaged: \d samples instead of 5"
    ):
        list(loader(address))
    with caplog.at_level(logging.WARNING, "v2m"):
        batches = list(loader(address, on_corrupt="skip"))
    assert len(batches) == 9
    assert 2 <= sum(batch.num_skipped for batch in batches) <= 4
    assert all((batch.lengths == 150).all() for batch in batches)
    assert "is damaged" in caplog.text


def test_a_missing_or_shorter_shard_is_found_before_training(address: str, caplog: pytest.LogCaptureFixture) -> None:
    remote.remove_file(f"{address}/00001.tar")
    replace(address, "00002.tar", lambda content: content[:-512])
    with pytest.raises(DependencyError, match=r"00001.tar is missing; 00002.tar has \d+ bytes instead of \d+"):
        loader(address)
    with caplog.at_level(logging.WARNING, "v2m"):
        batches = list(loader(address, on_corrupt="skip"))
    assert sum(batch.num_skipped for batch in batches) == COUNTS[1]
    assert not {f"sample{k:04d}" for k in range(5, 9)} & {*keys(batches)}
    assert "00001.tar is missing" in caplog.text


@pytest.mark.parametrize("name_length", [0, 247])  # by which the name in gzip's header may imitate that of a tar
def test_a_compressed_tar_is_no_shard(name_length: int, address: str) -> None:
    def compress(content: bytes) -> bytes:
        file = io.BytesIO()
        with gzip.GzipFile("x" * name_length + "ustar", "wb", 0, file, 0) as packed:
            packed.write(content)
        return file.getvalue()[: len(content)]

    replace(address, "00000.tar", compress)
    with pytest.raises(DependencyError, match="it is no plain tar"):
        list(loader(address))


def test_files_in_folders_of_a_dataset_are_no_shards(address: str) -> None:
    fsspec.filesystem("memory").pipe_file(f"{address}/old/00000.tar", b"another")
    assert len(list(loader(address))) == sum(COUNTS) // 2
    remote.remove_file(f"{address}/00000.tar")
    with pytest.raises(DependencyError, match=r"00000\.tar is missing"):
        loader(address)


def test_corrupt_samples_are_replaced_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = upload(made.write(tmp_path, (6, 6), change=spoil))
    with caplog.at_level(logging.WARNING, "v2m"):
        batches = list(loader(address))
    assert sum(batch.num_skipped for batch in batches) == 2
    assert not {"sample0002", "sample0007"} & {*keys(batches)}
    assert all((batch.lengths == 150).all() for batch in batches)
    assert "skipped: sample 'sample0002': frames.npy" in caplog.text
    again = loader(address)
    again.load_state_dict({**again.state_dict(), "position": 6})
    assert all(same(one, two) for one, two in zip(batches[3:], again, strict=False))


def test_only_corrupt_samples_end_the_run(tmp_path: Path) -> None:
    def all_bad(number: int, held: dict[str, bytes]) -> None:
        held[FRAMES] = b"no"

    with pytest.raises(DependencyError, match="are bad, the first"):
        list(loader(upload(made.write(tmp_path, (3,), change=all_bad))))


class FailingFile:
    """A file whose connection ends after some bytes."""

    def __init__(self, file: Any, num_bytes: int) -> None:
        self._file, self._left = file, num_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readinto(self, buffer: memoryview) -> int:
        if self._left <= 0:
            raise RuntimeError({"error": "the host has closed the connection"})  # as a service's library may
        self._left -= len(buffer)
        return self._file.readinto(buffer)


def test_reading_goes_on_after_a_lost_connection(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = list(loader(address))
    opened, num_failing, open_file = Counter[str](), 2, remote.open_file

    @contextmanager
    def lose_connection(name: str) -> Iterator[Any]:
        opened[name] += 1
        with open_file(name) as file:
            yield FailingFile(file, 20_000) if opened[name] <= num_failing else file

    monkeypatch.setattr(remote, "open_file", lose_connection)
    monkeypatch.setattr(streaming, "RETRY_S", 0.001)
    with caplog.at_level(logging.WARNING, "v2m"):
        assert all(same(one, two) for one, two in zip(expected, loader(address), strict=True))
    assert set(opened.values()) == {3}
    assert "the host has closed the connection'}: it is tried again" in caplog.text
    num_failing = 10**6
    with pytest.raises(DependencyError, match=r"cannot be read .*closed the connection"):
        list(loader(address))


def test_a_manifest_that_names_other_files_is_refused(address: str) -> None:
    def rename(content: bytes) -> bytes:
        values = json.loads(content)
        values["shards"][0]["file"] = "../other/00000.tar"
        return json.dumps(values).encode()

    replace(address, MANIFEST, rename)
    with pytest.raises(DependencyError, match="names a shard outside itself"):
        loader(address)
    with pytest.raises(DependencyError, match="names a shard outside itself"):
        ShardData(address, address, num_workers=0).val_dataloader()


def test_an_address_without_a_dataset_is_named_without_secrets(address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"nothing is at 'memory://bucket/other/dataset.json'"):
        loader("memory://bucket/other")
    with pytest.raises(UsageError) as caught:
        loader("s3://user:secret@bucket/shards")
    assert "secret" not in str(caught.value)


def test_validation_from_an_address_is_that_of_a_folder(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2M_CACHE", str(tmp_path / "cache"))
    passes = []
    for place in (tmp_path, address):
        data = ShardData(address, place, batch_size=4, window=3.0, num_workers=0)
        data.setup("fit")
        batches = data.val_dataloader()
        assert isinstance(batches, ResumableLoader)
        passes.append(list(batches))
    assert all(same(one, two) for one, two in zip(*passes, strict=True))
    assert keys(passes[0])[:18] == [f"sample{k:04d}" for k in range(18)]


def test_hashes_of_streamed_shards_cannot_be_verified_first(address: str) -> None:
    with pytest.raises(UsageError, match="verify_hashes"):
        ShardData(address, num_workers=0, verify_hashes=True).setup("fit")


def test_streams_leave_the_global_rng_unchanged(address: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    list(loader(address, workers=1))
    assert torch.equal(torch.rand(4), expected)


def test_manifest_of_an_address_is_that_of_the_folder(address: str, tmp_path: Path) -> None:
    assert ShardData(address, num_workers=0).manifest == Manifest.read(tmp_path)
