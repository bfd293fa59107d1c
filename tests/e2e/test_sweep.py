"""The searches that W&B is told to make ask train.py for what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from v2m.cli.train import TrainCLI
from v2m.core.errors import UsageError

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "configs/sweep").glob("*.yaml"))
MACROS = {"${env}", "${interpreter}", "${program}", "${args}"}


def composed(held: dict[str, Any], which: int) -> list[str]:
    """The words that W&B's agent would give train.py, with the first or the last of what may be tried."""
    chosen = {}
    for name, about in held["parameters"].items():
        several = about.get("values") or [about.get("min"), about.get("max")]
        chosen[name] = {"value": about["value"] if "value" in about else several[which]}
    arguments = create_sweep_command_args({"args": chosen})["args"]
    words = create_sweep_command(list(held["command"]))
    assert {word for word in words if word.startswith("${")} <= MACROS
    begin = words.index("${program}") + 1
    assert words[begin] == "fit"
    return [each for word in words[begin + 1 :] for each in (arguments if word == "${args}" else [word])]


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_command_is_parsed(path: Path, which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = yaml.safe_load(path.read_text())
    head = path.read_text().partition("\nprogram:")[0]
    assert f"uv run wandb sweep configs/sweep/{path.name}" in head
    words = composed(held, which)
    words[words.index("--config") + 1] = str(ROOT / words[words.index("--config") + 1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SWEEP_ID", "search")
    monkeypatch.setenv("WANDB_RUN_ID", "run7")
    command = TrainCLI(words, run=False)
    said = yaml.safe_load(command.parser.dump(command.config, skip_none=False))
    for name, about in held["parameters"].items():
        if "value" in about and name != "trainer.default_root_dir":
            assert at(said, name) == about["value"], name
    rate = held["parameters"]["model.optim.lr"]
    assert at(said, "model.optim.lr") == rate["min" if which == 0 else "max"]
    assert command.trainer.default_root_dir.endswith("checkpoints/sweep/small/run7")  # no other run's checkpoints
    assert held["metric"]["name"] == "validation/loss"


def at(held: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        held = held[part]
    return held


def test_unknown_sweep_parameter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail."""
    monkeypatch.chdir(tmp_path)
    held = yaml.safe_load(SWEEPS[0].read_text())
    held["parameters"]["model.optim.pace"] = {"value": 1}
    words = composed(held, 0)
    words[words.index("--config") + 1] = str(ROOT / words[words.index("--config") + 1])
    with pytest.raises(UsageError, match="pace"):
        TrainCLI(words, run=False)
