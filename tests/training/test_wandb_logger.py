"""Training goes on whatever becomes of W&B; one line says so, and the records are kept."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from tests.e2e.test_train import ROOT, words
from tests.fixtures.tiny import shards
from tests.fixtures.tiny.training import read_wandb_records, wait_for_run_end
from tests.fixtures.tiny.wandb_server import Fault, wandb_server
from v2m.cli.train import main
from v2m.training import wandb_logger
from v2m.training.wandb_logger import ResilientWandbLogger

KEY = "0123456789abcdef" * 2 + "01234567"  # of the right length, and nobody's


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of W&B but a key."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # and no netrc
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == wandb_logger.__name__]


def history(folder: Path) -> list[dict[str, Any]]:
    """Metrics of the one offline run below `folder`; a refused run may have left a folder of its own."""
    [offline] = folder.rglob("offline-run-*")
    rows = [record.history.item for record in wait_for_run_end(offline) if record.HasField("history")]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def train_arguments(tmp_path: Path, *more: str) -> list[str]:
    """Arguments of three training steps whose W&B records go to `tmp_path`/kept."""
    folder = shards.write(tmp_path / "shards", (3, 3), seconds=2.0)
    line = words(folder, tmp_path / "run", "--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1")
    line[line.index("--trainer.logger") + 1] = "v2m.training.wandb_logger.ResilientWandbLogger"
    return [*line, "--trainer.logger.init_args.save_dir", str(tmp_path / "kept"), *more]


def test_refusing_server_leaves_records_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the default number of seconds."""
    with wandb_server("refuses") as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert main(train_arguments(tmp_path)) == 0
        wandb.finish()  # as W&B itself does at the end of the process
    [line] = warnings(caplog)
    assert line.startswith("W&B does not take the run")
    assert f"its records are kept in {tmp_path / 'kept'}" in line
    assert (tmp_path / "run/checkpoints/step00000003.ckpt").is_file()
    assert len([row for row in history(tmp_path / "kept") if "train/loss" in row]) == 3


def test_server_that_dies_midway_leaves_records_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_logger, "FINISH_TIMEOUT_S", 2.0)
    with wandb_server("dies") as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert main(train_arguments(tmp_path)) == 0
        wandb.finish()
    printed = capfd.readouterr().err
    assert "wandb: WARNING" in printed or "wandb: ERROR" in printed, printed[-2000:]
    assert not list((tmp_path / "kept").rglob("offline-run-*"))  # the server had taken the run
    [path] = (tmp_path / "kept").rglob("run-*.wandb")
    rows = [record.history.item for record in read_wandb_records(path) if record.HasField("history")]
    losses = [item for row in rows for item in row if (item.key or "/".join(item.nested_key)) == "train/loss"]
    assert len(losses) == 3


def test_run_with_inherited_service_writes_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run's process leaves its W&B service in the environment, which serves until that run ends.

    The real command, whose warning is on its standard error.
    """
    wandb.init(mode="offline", dir=tmp_path / "other")
    assert "WANDB_SERVICE" in os.environ
    monkeypatch.delenv("WANDB_API_KEY")
    command = [sys.executable, "train.py", *train_arguments(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count(f"W&B keeps its records in {tmp_path / 'kept'} (there is no key") == 1
    assert wait_for_run_end(tmp_path / "kept", seconds=10.0)


@pytest.mark.parametrize("fault", ["closed", "silent"])
def test_absent_server_leaves_records_offline(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_logger, "ONLINE_INIT_TIMEOUT_S", 1.0)
    with wandb_server(fault) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        logger = ResilientWandbLogger(save_dir=str(tmp_path / "kept"))
        for step in range(2):
            logger.log_metrics({"loss": 1.0}, step)
        logger.experiment.finish()
    assert [text.partition(" (")[0] for text in warnings(caplog)] == ["W&B does not take the run"]
    assert len(history(tmp_path / "kept")) == 2


def test_missing_key_logs_offline_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    logger = ResilientWandbLogger(save_dir=str(tmp_path))
    assert logger._offline
    assert [text.partition(")")[0] for text in warnings(caplog)] == [
        f"W&B keeps its records in {tmp_path} (there is no key"
    ]
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")  # as `wandb login` does
    (tmp_path / ".netrc").chmod(0o600)
    assert not ResilientWandbLogger(save_dir=str(tmp_path))._offline


def test_wandb_crash_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("its process is gone")

    logger = ResilientWandbLogger(save_dir=str(tmp_path))
    logger._experiment = SimpleNamespace(log=fail, config=SimpleNamespace(update=fail))  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING, "v2m"):
        logger.log_hyperparams({"dim": 32})
        for step in range(3):
            logger.log_metrics({"loss": 1.0}, step)
    assert warnings(caplog) == ["W&B records no more (ConnectionError: its process is gone): training goes on"]


def test_offline_init_timeout_allows_for_slow_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, W&B's own process may take long to start."""

    def init_timeout(**kwargs: Any) -> float:
        return ResilientWandbLogger(save_dir=str(tmp_path), **kwargs)._wandb_init["settings"]["init_timeout"]

    assert init_timeout() == 8.0
    assert init_timeout(offline=True) == 120.0
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert init_timeout() == 120.0


def test_unlogged_configuration_is_logged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    init, calls = wandb.init, list[int]()

    def fail_once(**kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise TimeoutError("not yet")
        return init(**kwargs)

    monkeypatch.setattr("wandb.init", fail_once)
    logger = ResilientWandbLogger(save_dir=str(tmp_path), offline=True)
    logger.log_hyperparams({"width": 32})
    logger.log_metrics({"loss": 1.0}, 0)
    logger.experiment.finish()
    records = wait_for_run_end(tmp_path)
    updates = [item for record in records for item in (*record.run.config.update, *record.config.update)]
    assert [item.value_json for item in updates if item.key == "width"] == ["32"]
    assert [text.partition(" (")[0] for text in warnings(caplog)] == ["W&B records no more"]
