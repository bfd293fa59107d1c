"""What a researcher sees of a run of the real command: W&B's records read back from its file, and other loggers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.e2e.test_train import words
from tests.fixtures.tiny.training import wait_for_run_end, write_dataset
from v2m.cli.train import main

ROOT = Path(__file__).parents[2]
KEY, TOKEN = "0123456789abcdef" * 2 + "89abcdef", "hf_secretsecretsecret"
STEPS = 4
LOSSES = {f"{stage}/loss{number}" for stage in ("train", "validation") for number in ("", "_0", "_1", "_2", "_3")}
SEEN = {
    "train/grad_norm",
    "throughput/samples_per_sec",
    "throughput/codes_per_sec",
    "throughput/audio_hours",
    "data/skipped",
}
SEEN |= {"throughput/process_peak_gb", "trainer/global_step", "audio_samples/lufs", "audio_samples/accents"}
SEEN |= {f"lr/{group}" for group in ("lm", "lm_no_decay", "conditioner", "conditioner_no_decay")}
MEDIA = {"sound": "audio-file", "spectrogram": "image-file", "video": "video-file"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("prepared"))


def arguments(folder: Path, root: Path, *more: str) -> list[str]:
    about = ["--data.validation", str(folder), "--trainer.max_steps", str(STEPS), "--trainer.log_every_n_steps", "1"]
    return words(
        folder,
        root,
        *about,
        "--throughput.window_size",
        "2",
        "--audio_samples.every_n_validations",
        "1",
        "--audio_samples.num_clips",
        "1",
        *more,
    )


def with_logger(folder: Path, root: Path, name: str, **init: Any) -> list[str]:
    """The command with a logger by its class path, in a config of its own."""
    given = {"class_path": name, "init_args": {"save_dir": str(root / "kept"), **init}}
    (root / "logger.yaml").write_text(json.dumps({"trainer": {"logger": given}}))
    line = arguments(folder, root / "run")
    line[line.index("--trainer.logger") : line.index("--trainer.logger") + 2] = ["--config", str(root / "logger.yaml")]
    return line


def test_wandb_file_holds_the_whole_run_and_no_secret(
    folder: Path, tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Offline, with keys in the environment, as a user who has them runs it."""
    line = with_logger(folder, tmp_path, "v2m.training.wandb_logger.ResilientWandbLogger", offline=True)
    line += ["--audio_samples.videos", str(media / "cuts.mp4")]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(line) == 0
    wandb.finish()  # as W&B itself does at the end of the process
    config, figures, files = _read(tmp_path / "kept")
    [path] = (tmp_path / "kept").rglob("*.wandb")
    assert "model" in config, capfd.readouterr().err[-3000:]
    assert config["model"]["lm"]["dim"] == 32
    assert config["data"] == config["data"] | {"train": str(folder), "batch_size": 2, "window": 1.0}
    assert config["trainer"]["max_steps"] == STEPS
    assert config["audio_samples"]["seed"] == 0
    assert config["model_info"]["model"]["conditioner"]["vision_dim"] == 32  # what only the shards decide
    assert config["model_info"]["shards"]["codec"].endswith("encodec")
    assert config["model_info"]["trainable_parameters"] > 50_000

    assert figures.keys() >= LOSSES | SEEN, (LOSSES | SEEN) - figures.keys()
    assert len(figures["train/loss_3"]) == STEPS
    assert all(value > 0 for value in figures["throughput/process_peak_gb"])
    for kind, name in MEDIA.items():
        place = f"audio_samples/cuts/{kind}"
        assert figures[f"{place}/_type"][-1] == name
        held = path.parent / "files" / figures[f"{place}/path"][-1]
        assert held.stat().st_size == figures[f"{place}/size"][-1] > 1000
        assert figures[f"{place}/path"][-1] in files
    for each in [*(tmp_path / "kept").rglob("*"), *(tmp_path / "run").rglob("*")]:
        held = each.read_bytes() if each.is_file() else b""
        assert KEY.encode() not in held, each
        assert TOKEN.encode() not in held, each


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, list[Any]], set[str]]:
    """Configuration, figures by name, and names of files."""
    config: dict[str, Any] = {}
    figures: dict[str, list[Any]] = {}
    files: set[str] = set()
    for each in wait_for_run_end(folder):
        for item in (*each.run.config.update, *each.config.update):
            config[item.key] = json.loads(item.value_json)
        for item in each.history.item:
            figures.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
        files |= {file.path for file in each.files.files}
    return config, figures, files


def test_csv_logger_works_by_class_path(folder: Path, tmp_path: Path) -> None:
    assert main(with_logger(folder, tmp_path, "lightning.pytorch.loggers.CSVLogger")) == 0
    [table] = (tmp_path / "kept").rglob("metrics.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert (LOSSES | SEEN) - {"trainer/global_step"} <= rows[0].keys()
    heard, measured = ([row["step"] for row in rows if row[name]] for name in ("audio_samples/lufs", "validation/loss"))
    assert heard == [*measured, str(STEPS - 1)]  # and once more at the end
    assert (tmp_path / f"run/audio_samples/step{STEPS:08d}/sample0000.flac").is_file()


def test_tensorboard_logger_works_by_class_path_with_audio_and_images(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(with_logger(folder, tmp_path, "lightning.pytorch.loggers.TensorBoardLogger")) == 0
    [events] = (tmp_path / "kept").rglob("events.*")
    held = EventAccumulator(str(events), size_guidance={"audio": 0, "images": 0}).Reload()
    assert (LOSSES | SEEN) - {"trainer/global_step"} <= set(held.Tags()["scalars"])
    assert held.Audio("audio_samples/sample0000/sound")[0].sample_rate == 32000
    assert held.Images("audio_samples/sample0000/spectrogram")[0].width == 1100


@pytest.mark.slow
def test_only_rank_zero_of_two_logs(folder: Path, tmp_path: Path) -> None:
    """The other goes on, and waits where the gradients meet."""
    ranks = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.val_check_interval", "1"]
    line = [*arguments(folder, tmp_path / "run", *ranks), "--trainer.check_val_every_n_epoch", "null"]
    done = subprocess.run(
        [sys.executable, "train.py", *line], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    heard = sorted(path.parent.name for path in tmp_path.rglob("metrics.json"))
    assert heard == [f"step{step:08d}" for step in range(1, STEPS + 1)]
