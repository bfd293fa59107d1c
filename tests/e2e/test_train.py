"""The real command on shards in the real schema: trained, killed, gone on with, exported."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from tests.fixtures.tiny import shards as made
from v2m.checkpoints import V2M
from v2m.cli.convert import main as convert
from v2m.cli.train import TrainCLI, main
from v2m.training.checkpoints import list_checkpoints

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs/train").glob("*.yaml"))
SMALL = ["--model.lm.dim", "32", "--model.lm.num_layers", "1", "--data.window", "1", "--data.batch_size", "2"]


def words(folder: Path | str, root: Path, *more: str) -> list[str]:
    given = ["--data.train", str(folder), "--trainer.default_root_dir", str(root), "--trainer.logger", "false"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    return ["fit", "--config", str(ROOT / "configs/train/tiny.yaml"), *given, *quiet, *SMALL, *more]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_parsed_and_opens_with_its_command(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    command = TrainCLI(["--config", str(path)], run=False)
    assert command.trainer.max_steps > 0
    head = path.read_text().partition("\nmodel:")[0]
    assert f"uv run train.py fit --config configs/train/{path.name}" in head
    assert all(line.startswith("#") for line in head.splitlines())


def test_trained_weights_become_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The averaged ones, with what they were shown and the frozen models that go with them."""
    folder = made.write(tmp_path / "shards", (3, 3), seconds=2.0)
    validated = ["--data.validation", str(folder), "--checkpoints.every_n_train_steps", "2", "--trainer.max_steps"]
    assert main(words(folder, tmp_path / "run", *validated, "4")) == 0
    assert main(words(folder, tmp_path / "run", *validated, "6")) == 0  # goes on
    paths = list_checkpoints(tmp_path / "run/checkpoints")
    assert [path.name for path in paths] == [f"step{step:08d}.ckpt" for step in (6, 4, 2)]
    assert convert([str(paths[0]), str(tmp_path / "made")]) == 0
    held = torch.load(paths[0], weights_only=True)
    model = V2M.from_pretrained(str(tmp_path / "made"))
    own = model.state_dict()
    assert {f"model.{name}" for name in own} == set(held["ema"]) == set(held["state_dict"])
    assert all(torch.equal(value, held["ema"][f"model.{name}"]) for name, value in own.items())
    assert any(not torch.equal(value, held["state_dict"][f"model.{name}"]) for name, value in own.items())
    assert {kind: part.name for kind, part in model.components.items()} == dict.fromkeys(model.components, "tiny")
    assert model.visual_input is not None
    assert (model.visual_input.pooling, model.visual_input.event_channels, model.visual_input.num_long_term_frames) == (
        "grid",
        made.KEPT.event_channels,
        6,
    )
    assert model.config.segment_duration == 1.0
    assert main(["validate", *words(folder, tmp_path / "run", *validated, "6")[1:], "--ckpt_path", str(paths[0])]) == 0
    assert "validation/loss" in capsys.readouterr().out


def test_training_warns_of_nothing_that_is_no_problem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it advertise: without validation, with fewer batches in an epoch than steps between two logs."""
    folder = made.write(tmp_path / "shards", (3, 3), seconds=2.0)
    arguments = words(folder, tmp_path / "run", "--trainer.max_steps", "4")
    arguments[arguments.index("--trainer.logger") + 1] = "lightning.pytorch.loggers.CSVLogger"
    lightning = logging.getLogger("lightning.pytorch")
    lightning.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)  # which Python shows to nobody
            assert main([*arguments, "--trainer.logger.save_dir", str(tmp_path / "logs")]) == 0
    finally:
        lightning.removeHandler(caplog.handler)
    assert [str(each.message) for each in shown] == []
    assert "max_steps=4" in caplog.text
    assert "Tip" not in caplog.text


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_run_resumes_to_the_result_of_an_uninterrupted_run(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "shards", (4, 4), seconds=2.0)
    more = ["--trainer.max_steps", "40", "--checkpoints.every_n_train_steps", "5", "--data.num_workers", "1"]
    runs = {name: [sys.executable, "train.py", *words(folder, tmp_path / name, *more)] for name in ("whole", "cut")}
    subprocess.run(runs["whole"], cwd=ROOT, check=True, capture_output=True)
    for step, number in ((5, signal.SIGKILL), (20, signal.SIGKILL), (30, signal.SIGTERM)):
        process = subprocess.Popen(runs["cut"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for(tmp_path / f"cut/checkpoints/step{step:08d}.ckpt", process)
        process.send_signal(number)
        said = process.communicate()[0]
        assert process.returncode == (143 if number == signal.SIGTERM else -number), said[-3000:]
    subprocess.run(runs["cut"], cwd=ROOT, check=True, capture_output=True)
    one, two = (torch.load(tmp_path / f"{name}/checkpoints/step00000040.ckpt", weights_only=True) for name in runs)
    for name in ("state_dict", "ema"):
        assert all(torch.equal(value, two[name][key]) for key, value in one[name].items())


def rank_of(process: subprocess.Popen[str], rank: int) -> int:
    """The process number of a rank: the first is the command itself, which starts the others."""
    if rank == 0:
        return process.pid
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    own = [int(each) for each in children if "train.py" in Path(f"/proc/{each}/cmdline").read_text()]
    return own[rank - 1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_killed_rank_of_two_resumes_to_the_result_of_an_uninterrupted_run(tmp_path: Path, strategy: str) -> None:
    """With conditions dropped by each rank for itself; after the end the weights become a checkpoint."""
    folder = made.write(tmp_path / "shards", (4, 4), seconds=2.0)
    more = ["--trainer.max_steps", "200", "--checkpoints.every_n_train_steps", "5", "--checkpoints.keep_last", "100"]
    more += ["--model.text_dropout", "0.5", "--trainer.devices", "2", "--trainer.strategy", strategy]
    runs = {name: [sys.executable, "train.py", *words(folder, tmp_path / name, *more)] for name in ("whole", "cut")}
    subprocess.run(runs["whole"], cwd=ROOT, check=True, capture_output=True)
    for step, rank, number in ((5, 1, signal.SIGKILL), (10, 0, signal.SIGKILL), (15, 0, signal.SIGTERM)):
        process = subprocess.Popen(runs["cut"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for(tmp_path / f"cut/checkpoints/step{step:08d}.ckpt", process, 600)
        os.kill(rank_of(process, rank), number)
        said = process.communicate(timeout=600)[0]
        assert process.returncode, said[-3000:]
        assert number != signal.SIGTERM or process.returncode == 143, said[-3000:]
    subprocess.run(runs["cut"], cwd=ROOT, check=True, capture_output=True)
    one, two = (torch.load(tmp_path / f"{name}/checkpoints/step00000200.ckpt", weights_only=True) for name in runs)
    for name in ("state_dict", "ema"):
        assert all(torch.equal(value, two[name][key]) for key, value in one[name].items())
    assert convert([str(tmp_path / "cut/checkpoints/step00000200.ckpt"), str(tmp_path / "made")]) == 0
    own = V2M.from_pretrained(str(tmp_path / "made")).state_dict()
    assert all(torch.equal(value, one["ema"][f"model.{name}"]) for name, value in own.items())


@pytest.mark.slow
def test_resume_with_another_number_of_ranks_continues_at_the_same_sample(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "shards", (4, 4), seconds=2.0)
    said = ""
    for steps, more in (
        ("2", ["--trainer.devices", "2", "--trainer.strategy", "ddp"]),
        ("4", ["--data.num_workers", "1"]),
    ):
        given = words(folder, tmp_path / "run", "--trainer.max_steps", steps, *more)
        done = subprocess.run(
            [sys.executable, "train.py", *given], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said = done.stderr
    assert "another world than before: the run goes on at the same sample" in said
    held = [
        torch.load(tmp_path / f"run/checkpoints/step{step:08d}.ckpt", weights_only=True)["loops"] for step in (2, 4)
    ]
    where = [loops["fit_loop"]["state_dict"]["combined_loader"][0]["position"] for loops in held]
    assert where == [8, 12]  # two steps of 2 ranks with 2 clips each, then two of 2 clips


@pytest.mark.slow
def test_two_ranks_equal_one_rank_with_both_batches(tmp_path: Path) -> None:
    """Their batches are disjoint and their gradients agree, or the weights would differ."""
    folder = made.write(tmp_path / "shards", (4, 4), seconds=2.0)
    same = ["--trainer.max_steps", "6", "--data.validation", str(folder), "--checkpoints.every_n_train_steps", "2"]
    same += ["--model.text_dropout", "0", "--model.video_dropout", "0"]
    alone = words(folder, tmp_path / "one", *same, "--data.batch_size", "4")
    ranks = words(folder, tmp_path / "two", *same, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    for each in (alone, ranks):
        done = subprocess.run(
            [sys.executable, "train.py", *each], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        torch.load(tmp_path / f"{name}/checkpoints/step00000006.ckpt", weights_only=True) for name in ("one", "two")
    )
    assert len(two["rng_state"]) == 2
    assert not torch.equal(two["rng_state"][0]["torch"], two["rng_state"][1]["torch"])
    for name in ("state_dict", "ema"):
        assert all(torch.allclose(value, two[name][key], atol=2e-5) for key, value in one[name].items())
