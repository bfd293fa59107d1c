"""A run that is ended, however, goes on as if it had not been."""

from __future__ import annotations

import logging
import os
import resource
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch

from tests.fixtures.tiny import shards as made
from v2m.core.errors import DISK, DiskFullError, exit_code
from v2m.data.module import ShardData
from v2m.models.lm import LMConfig
from v2m.models.visual_conditioner import ConditionerConfig
from v2m.training.checkpoints import AtomicCheckpointIO, CheckpointCallback, latest_checkpoint, list_checkpoints
from v2m.training.ema import EMACallback
from v2m.training.module import LitMusicLM
from v2m.training.optim import OptimConfig

LM = LMConfig(dim=32, num_layers=1, num_heads=4, dropout=0.1)
SEES = ConditionerConfig(num_layers=1, num_heads=2, head_dim=16, ffn_dim=32)
END = 9  # steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("shards"), (4, 5), seconds=3.0)


class Ending(lightning.Callback):
    """Sends a signal to this process amid a batch."""

    def __init__(self, batch: int, number: int = signal.SIGTERM) -> None:
        self.batch, self.number, self.seen, self.losses = batch, number, 0, list[float]()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        self.losses.append(loss.item())
        self.seen += 1
        if self.seen == self.batch:
            os.kill(os.getpid(), self.number)


def data(folder: Path, workers: int = 0, batch: int = 2) -> ShardData:
    return ShardData(folder, folder, batch_size=batch, window=1.0, num_workers=workers)


def run(
    folder: Path,
    root: Path,
    ending: Ending,
    *,
    accumulate: int = 1,
    workers: int = 0,
    every: int = 3,
    batch: int = 2,
    model: LitMusicLM | None = None,
    **given: Any,
) -> None:
    """The same command, as often as it is given."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "default_root_dir": root,
        "max_steps": END,
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": 1.0,
        "callbacks": [EMACallback(0.9), ending, CheckpointCallback(every)],
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    trainer = lightning.Trainer(**(settings | given))
    model = model or LitMusicLM(
        lm=LM, conditioner=SEES, optim=OptimConfig(lr=3e-3, lm_lr_scale=0.5, warmup_steps=3), window=1.0
    )
    found = latest_checkpoint(root / "checkpoints")
    trainer.fit(model, data(folder, workers, batch), ckpt_path=found and str(found), weights_only=True)


def state(root: Path, step: int = END) -> dict[str, Any]:
    return torch.load(root / "checkpoints" / f"step{step:08d}.ckpt", weights_only=True)


def alike(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(alike, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


@pytest.mark.parametrize(("accumulate", "batch", "workers"), [(1, 1, 0), (1, 4, 0), (1, 5, 1), (2, 3, 0), (2, 10, 0)])
def test_resumed_run_is_bit_identical_to_uninterrupted(
    folder: Path, tmp_path: Path, accumulate: int, batch: int, workers: int
) -> None:
    """Weights, averages, optimizer, random numbers (dropout, guidance) and the place in the data; 4 batches a pass."""
    before = signal.getsignal(signal.SIGTERM)
    whole, ended, again = Ending(0), Ending(batch), Ending(0)
    run(folder, tmp_path / "whole", whole, accumulate=accumulate, workers=workers)
    with pytest.raises(SystemExit) as caught:
        run(folder, tmp_path / "cut", ended, accumulate=accumulate, workers=workers)
    assert caught.value.code == 143
    assert len(ended.losses) == -(-batch // accumulate) * accumulate  # the step that was under way is whole
    assert signal.getsignal(signal.SIGTERM) == before
    run(folder, tmp_path / "cut", again, accumulate=accumulate, workers=workers)
    assert ended.losses + again.losses == whole.losses
    one, two = state(tmp_path / "whole"), state(tmp_path / "cut")
    for name in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "rng_state", "v2m", "global_step"):
        assert alike(one[name], two[name]), name


def test_resume_skips_broken_checkpoint(folder: Path, tmp_path: Path) -> None:
    """As after kill −9, with a last checkpoint that is broken besides."""
    run(folder, tmp_path, Ending(0))
    wanted = state(tmp_path)
    paths = list_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in paths] == [f"step{step:08d}.ckpt" for step in (9, 6, 3)]
    paths[0].write_bytes(paths[0].read_bytes()[:20_000])
    again = Ending(0)
    run(folder, tmp_path, again)
    assert len(again.losses) == 3
    assert alike(state(tmp_path)["state_dict"], wanted["state_dict"])


def test_interrupt_saves_and_exits_with_130(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(folder, tmp_path, Ending(4, signal.SIGINT), every=100)
    assert caught.value.code == 130
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step00000004.ckpt"]


def test_slurm_signal_requeues_the_job(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {told}\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    with pytest.raises(SystemExit):
        run(folder, tmp_path, Ending(2, signal.SIGUSR1), every=100)
    assert told.read_text() == "requeue 123\n"
    assert latest_checkpoint(tmp_path / "checkpoints") is not None


def test_latest_checkpoint_skips_unreadable_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert latest_checkpoint(tmp_path / "none") is None
    for step in (1, 2, 3, 4):
        AtomicCheckpointIO().save_checkpoint({"step": step, "w": torch.zeros(5000)}, tmp_path / f"step{step:08d}.ckpt")
    held = (tmp_path / "step00000004.ckpt").read_bytes()
    (tmp_path / "step00000004.ckpt").write_bytes(held[: len(held) // 2])
    (tmp_path / "step00000003.ckpt").write_bytes(b"")
    (tmp_path / ".step00000009.ckpt.abc").write_bytes(held)
    (tmp_path / "step00000005.ckpt").mkdir()  # as others shard checkpoints
    with caplog.at_level(logging.WARNING, "v2m"):
        assert latest_checkpoint(tmp_path) == tmp_path / "step00000002.ckpt"
    assert "step00000005.ckpt cannot be read ([Errno 21] Is a directory" in caplog.text
    assert "step00000004.ckpt cannot be read" in caplog.text
    assert "step00000003.ckpt cannot be read" in caplog.text


class Bomb:
    """Make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickled_code_in_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "step00000001.ckpt")
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(Exception, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "step00000001.ckpt")
    assert not (tmp_path / "ran").exists()


def test_full_disk_keeps_existing_checkpoints(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(10)}, tmp_path / "step00000001.ckpt")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        for step in (1, 2):
            with pytest.raises(DiskFullError, match="too full for the checkpoint") as caught:
                AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(1_000_000)}, tmp_path / f"step{step:08d}.ckpt")
            assert exit_code(caught.value) == DISK
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["step00000001.ckpt"]
    assert latest_checkpoint(tmp_path) is not None


def test_ema_weights_are_validated_and_weights_restored(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path, Ending(0))
    held = state(tmp_path)
    weights, average = held["state_dict"], held["ema"]
    assert weights.keys() == average.keys()
    assert not alike(weights, average)
    own, trainer = EMACallback(0.9), SimpleNamespace(global_step=0)
    at: Any = trainer
    layer: Any = torch.nn.Linear(2, 1)
    own.on_train_start(at, layer)
    begin = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1.0
    trainer.global_step = 1
    own.on_train_batch_end(at, layer, None, None, 0)
    own.on_train_batch_end(at, layer, None, None, 1)  # amid accumulation: nothing new
    moved = layer.weight.detach().clone()
    own.on_validation_start(at, layer)
    assert torch.allclose(layer.weight, begin + 1 - 2 / 11)
    own.on_validation_end(at, layer)
    assert torch.equal(layer.weight, moved)
