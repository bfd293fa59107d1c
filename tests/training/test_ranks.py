"""Two ranks on the CPU, as forks of this process: what they see, what they learn, how they go on. R ranks."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, StrategyRegistry

from tests.fixtures.tiny import shards as made
from tests.training.test_checkpoints import END, SEES, Ending, alike, run, state
from v2m import checkpoints
from v2m.checkpoints import lightning_ckpt
from v2m.core import errors
from v2m.core.errors import UsageError, exit_code
from v2m.models.lm import LMConfig
from v2m.models.lora import LoRAConfig
from v2m.models.music_model import MusicConfig
from v2m.training.checkpoints import list_checkpoints
from v2m.training.fsdp import STRATEGY_NAMES, FSDP2Strategy, check_strategy
from v2m.training.module import LitMusicLM
from v2m.training.optim import OptimConfig

LM = LMConfig(dim=32, num_layers=2, num_heads=4, codebook_size=64)
ALWAYS = {"text_dropout": 0.0, "video_dropout": 0.0}  # one rank draws other random numbers than two


class Noting(Ending):
    """An ending at one rank that keeps what the rank saw: names of samples and losses."""

    def __init__(self, to: Path, batch: int = 0, number: int = signal.SIGTERM, rank: int = 0) -> None:
        super().__init__(batch if int(os.environ.get("LOCAL_RANK", "0")) == rank else 0, number)
        self.to, self.keys = to, list[list[str]]()
        to.parent.mkdir(parents=True, exist_ok=True)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.keys.append(batch.keys)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        torch.save([self.keys, self.losses], self.to)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")


def model(**given: Any) -> LitMusicLM:
    learning = OptimConfig(lr=3e-3, lm_lr_scale=0.5, warmup_steps=3)
    sizes = {} if "init_from" in given else {"lm": LM}
    return LitMusicLM(**sizes, conditioner=SEES, window=1.0, optim=learning, **given)


def ranks(folder: Path, root: Path, strategy: str, how: dict[str, Any] | None = None, **end: Any) -> list[int]:
    """Runs on two ranks; the exit code of each, and in `root`/`rank<n>` what it saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work(rank: int) -> None:
        given = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update(given | {"WORLD_SIZE": "2"})
        lightning.seed_everything(
            1, verbose=False
        )  # as the command does it: a fork has Python's random numbers of its own
        try:
            noted = Noting(root / f"rank{rank}", **end)
            run(folder, root, noted, model=model(**(how or {})), strategy=strategy, devices=2)
        except BaseException as error:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(exit_code(error))
        os._exit(0)

    processes = [get_context("fork").Process(target=work, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        process.kill()
        process.join()
    return [process.exitcode or 0 for process in processes]


def noted(root: Path) -> list[tuple[list[list[str]], list[float]]]:
    return [tuple(torch.load(root / f"rank{rank}", weights_only=True)) for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("shards"), (4, 5), seconds=3.0)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two ranks that were never stopped, with dropout of conditions, which each rank draws for itself."""
    roots = {strategy: tmp_path_factory.mktemp(strategy) for strategy in ("ddp", "fsdp2")}
    for strategy, root in roots.items():
        assert ranks(folder, root, strategy) == [0, 0]
    return roots


def same(one: Path, two: Path) -> None:
    for name in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "rng_state", "v2m", "global_step"):
        assert alike(state(one)[name], state(two)[name]), name


def test_ddp_ranks_see_different_samples_and_equal_one_rank(tmp_path: Path) -> None:
    """Their mean is the loss, and their weights are those, of one rank that sees the samples of both."""
    folder = made.write(tmp_path / "shards", (4, 4), seconds=3.0)
    assert ranks(folder, tmp_path / "two", "ddp", how=ALWAYS) == [0, 0]
    alone = Noting(tmp_path / "one/rank0")
    run(folder, tmp_path / "one", alone, model=model(**ALWAYS), batch=4)
    (keys, losses), (others, their) = noted(tmp_path / "two")
    for step in range(END):
        assert not set(keys[step]) & set(others[step])
        assert keys[step] + others[step] == alone.keys[step]
        assert (losses[step] + their[step]) / 2 == pytest.approx(alone.losses[step], abs=1e-5)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name in ("state_dict", "ema"):
        assert all(torch.allclose(value, two[name][key], atol=2e-5) for key, value in one[name].items())


def test_fsdp2_equals_ddp_and_saves_one_whole_file(whole: dict[str, Path]) -> None:
    for one, two in zip(*(noted(root) for root in whole.values()), strict=True):
        assert one[0] == two[0]
        assert one[1] == pytest.approx(two[1], abs=1e-5)
    one, two = (state(root) for root in whole.values())
    assert one.keys() == two.keys()
    for name in ("state_dict", "ema"):
        assert one[name].keys() == two[name].keys()
        assert all(type(value) is torch.Tensor for value in two[name].values())
        assert all(torch.allclose(value, two[name][key], atol=1e-5) for key, value in one[name].items())
    held = lightning_ckpt.load_training_checkpoint(list_checkpoints(whole["fsdp2"] / "checkpoints")[0]).state_dict()
    assert all(torch.equal(value, two["ema"][f"model.{name}"]) for name, value in held.items())


@pytest.mark.parametrize(
    ("strategy", "number"), [("ddp", signal.SIGTERM), ("ddp", signal.SIGKILL), ("fsdp2", signal.SIGTERM)]
)
def test_resumed_ranks_are_bit_identical(
    folder: Path, tmp_path: Path, whole: dict[str, Path], strategy: str, number: int
) -> None:
    """After a signal to the second alone: both end after the step, or, where one is killed, the other does in time."""
    codes = ranks(folder, tmp_path, strategy, batch=5, number=number, rank=1)
    assert codes == ([143, 143] if number == signal.SIGTERM else [1, -signal.SIGKILL])
    last = list_checkpoints(tmp_path / "checkpoints")[0].name
    assert last == f"step{5 if number == signal.SIGTERM else 3:08d}.ckpt"
    assert ranks(folder, tmp_path, strategy) == [0, 0]
    same(whole[strategy], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("ddp", "fsdp2"), ("fsdp2", "ddp")])
def test_checkpoint_resumes_under_other_strategy(
    folder: Path, tmp_path: Path, whole: dict[str, Path], before: str, after: str
) -> None:
    path = tmp_path / "checkpoints/step00000006.ckpt"
    path.parent.mkdir()
    path.write_bytes((whole[before] / "checkpoints" / path.name).read_bytes())
    assert ranks(folder, tmp_path, after) == [0, 0]
    one, two = state(whole[after]), state(tmp_path)
    assert all(torch.allclose(value, two["state_dict"][key], atol=1e-5) for key, value in one["state_dict"].items())


def test_fsdp2_reports_other_lora_rank_before_shapes(folder: Path, tmp_path: Path) -> None:
    checkpoints.V2M(MusicConfig(LM, 16)).save_pretrained(tmp_path / "start")
    for rank, code in ((4, errors.OK), (2, errors.USAGE)):
        how = {"init_from": str(tmp_path / "start"), "lora": LoRAConfig(rank, 8.0)}
        assert ranks(folder, tmp_path, "fsdp2", how) == [code, code]


def test_unsupported_strategies_and_precisions_are_refused() -> None:
    for name in STRATEGY_NAMES:
        assert isinstance(StrategyRegistry.get(name), FSDP2Strategy)
    for strategy, precision, said in (
        (ModelParallelStrategy(), "32-true", "ModelParallelStrategy keeps .*give `trainer.strategy=fsdp2`"),
        (StrategyRegistry.get("fsdp_cpu_offload"), "32-true", "FSDPStrategy keeps"),
        (FSDP2Strategy(), "16-mixed", "16-mixed is not for sharded weights: give 32-true or bf16-mixed"),
        (DDPStrategy(), "bf16-true", "bf16-true rounds"),
    ):
        trainer: Any = SimpleNamespace(strategy=strategy, precision=precision)
        with pytest.raises(UsageError, match=said):
            check_strategy(trainer)
