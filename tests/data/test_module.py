"""Which samples come when: the same whatever the number of workers, and from any step on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.fixtures.tiny import shards as made
from v2m.core.errors import DependencyError, UsageError
from v2m.data.collate import Batch
from v2m.data.module import ResumableLoader, ShardData
from v2m.data.sampler import ResumableSampler
from v2m.data.schema import FRAMES


def loader(
    folder: Path, *, workers: int = 0, world: int = 1, rank: int = 0, batch: int = 2, endless: bool = True
) -> ResumableLoader:
    data = ShardData(folder, folder, batch_size=batch, window=3.0, num_workers=workers)
    data.setup("fit")
    batches = data.train_dataloader() if endless else data.val_dataloader()
    assert isinstance(batches, ResumableLoader)
    batches.index_sampler = ResumableSampler(batches.index_sampler.num_samples, batch, 0, world, rank)
    return batches


def same(one: Batch, two: Batch) -> bool:
    tensors = [
        (one.codes, two.codes),
        *zip(one.visual, two.visual, strict=True),
        *zip(one.text[:2], two.text[:2], strict=True),
    ]
    return one.keys == two.keys and all(torch.equal(a, b) for a, b in tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("shards"), (5, 4, 3))


def test_each_epoch_is_another_permutation_of_all_samples() -> None:
    order = ResumableSampler(12, 4, seed=3)
    laps = [[place.sample for k in range(3) for place in order.train_batch_at(12 * lap + 4 * k)] for lap in range(3)]
    assert all(sorted(lap) == list(range(12)) for lap in laps)
    assert len({tuple(lap) for lap in laps}) == 3
    assert laps[1] == [
        place.sample for k in range(3) for place in ResumableSampler(12, 4, seed=3).train_batch_at(12 + 4 * k)
    ]
    assert laps[0] != [
        place.sample for k in range(3) for place in ResumableSampler(12, 4, seed=4).train_batch_at(4 * k)
    ]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_have_disjoint_samples_that_cover_the_dataset(world: int) -> None:
    orders = [ResumableSampler(12, 2, 1, world, rank) for rank in range(world)]
    step = orders[0].global_batch_size
    seen = [place.sample for begin in range(0, 12, step) for order in orders for place in order.train_batch_at(begin)]
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [1, 7, 12])
def test_validation_gives_each_sample_once_and_all_ranks_as_many_batches(world: int, samples: int) -> None:
    ranks = [list(ResumableSampler(samples, 2, 1, world, rank).eval_batches()) for rank in range(world)]
    assert sorted(p.sample for rank in ranks for row in rank for p in row if p.sample >= 0) == list(range(samples))
    assert len({len(rank) for rank in ranks}) == 1


def test_batches_do_not_depend_on_the_number_of_workers(folder: Path) -> None:
    for endless in (True, False):
        plain = list(loader(folder, endless=endless))
        assert len(plain) == 6
        for workers in (1, 2):
            for one, two in zip(plain, loader(folder, workers=workers, endless=endless), strict=True):
                assert same(one, two)


def test_validation_crops_start_at_zero(folder: Path) -> None:
    keys = [key for batch in loader(folder, endless=False, workers=2) for key in batch.keys]
    assert keys == [f"sample{k:04d}" for k in range(12)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_batches_equal_those_of_an_uninterrupted_run(folder: Path, workers: int, stop: int) -> None:
    first = loader(folder)
    whole = [*first, *first]
    assert first.state_dict()["position"] == 24
    cut = loader(folder, workers=workers)
    for _, _batch in zip(range(stop), cut, strict=False):
        pass
    state = cut.state_dict()
    again = loader(folder, workers=workers)
    again.load_state_dict(state)
    gone_on = [*again, *again]
    assert all(same(one, two) for one, two in zip(whole[stop:], gone_on, strict=False))


def test_resuming_with_other_settings_warns(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = loader(folder)
    next(iter(held))
    other = loader(folder, batch=4)
    with caplog.at_level(logging.WARNING, "v2m"):
        other.load_state_dict({**held.state_dict(), "position": 8})
        assert "another batch_size than before" in caplog.text
        assert other.position == 8
        loader(made.write(tmp_path, (3,), first=5)).load_state_dict(held.state_dict())
    assert "other shards than before" in caplog.text


def spoil(number: int, held: dict[str, bytes]) -> None:
    if number in {2, 7}:
        held[FRAMES] = b"\x93NUMPY no more"


def test_corrupt_sample_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made.write(tmp_path, (6, 6), change=spoil)
    with caplog.at_level(logging.WARNING, "v2m"):
        batches = list(loader(folder))
    assert sum(batch.num_skipped for batch in batches) >= 2
    assert all((batch.lengths == 150).all() for batch in batches)
    assert not {"sample0002", "sample0007"} & {key for batch in batches for key in batch.keys}
    assert "skipped: sample 'sample0002': frames.npy" in caplog.text
    once = list(loader(folder, endless=False))
    assert sum(batch.num_skipped for batch in once) == 2
    assert sorted(key for batch in once for key in batch.keys if key) == [
        f"sample{k:04d}" for k in range(12) if k not in {2, 7}
    ]


def test_only_corrupt_samples_end_the_run(tmp_path: Path) -> None:
    def all_bad(number: int, held: dict[str, bytes]) -> None:
        held[FRAMES] = b"no"

    with pytest.raises(DependencyError, match="are bad, the last"):
        next(iter(loader(made.write(tmp_path, (3,), change=all_bad))))


def test_loader_leaves_the_global_rng_unchanged(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for _ in loader(folder, workers=1):
        pass
    assert torch.equal(torch.rand(4), expected)


def test_invalid_settings_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"batch_size 0 .*window 0 .*edge_share 2 .*num_workers -1"):
        ShardData(tmp_path, batch_size=0, window=0.0, edge_share=2.0, num_workers=-1)


def test_several_folders_are_one_dataset(folder: Path, tmp_path: Path) -> None:
    other = made.write(tmp_path / "more", (3, 2), first=12)
    data = ShardData([str(folder), str(other)], batch_size=1, window=3.0, num_workers=0)
    data.setup("fit")
    keys = [key for batch in data.train_dataloader() for key in batch.keys]
    assert sorted(keys) == [f"sample{k:04d}" for k in range(17)]
    with pytest.raises(UsageError, match="some are folders and some are addresses"):
        ShardData([str(folder), "s3://bucket/shards"])
    different = made.write(tmp_path / "other", (1,), manifest=replace(made.KEPT, video_frame_rate=4.0))
    with pytest.raises(DependencyError, match=r"other' was prepared with another video_frame_rate than"):
        ShardData([str(folder), str(different)], num_workers=0).setup("fit")


def test_validation_of_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    other = made.write(tmp_path, (1,), manifest=replace(made.KEPT, vision_encoder="other:grid"))
    with pytest.raises(DependencyError, match="another vision_encoder than"):
        ShardData(folder, other).setup("fit")
