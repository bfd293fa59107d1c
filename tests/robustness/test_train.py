"""What people get wrong with train.py: one line each, and the exit code that says whose fault it was."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import names
from tests.e2e.test_train import ROOT, words
from tests.fixtures.tiny import shards as made
from tests.robustness.full_disk import file_size_limit, small_disk
from v2m.cli.train import main
from v2m.core.errors import DISK, ENVIRONMENT, OK, USAGE
from v2m.data.schema import FRAMES, MANIFEST


def line(capsys: pytest.CaptureFixture[str]) -> str:
    said = [row for row in capsys.readouterr().err.splitlines() if row.startswith("train.py: ")]
    assert len(said) == 1, said
    return said[0]


def fit(folder: Path, root: Path, *more: str) -> int:
    return main(words(folder, root, "--trainer.max_steps", "1", *more))


def test_missing_shards_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name, code, told in (("none", USAGE, "there is no folder"), ("empty", ENVIRONMENT, "holds no dataset")):
        assert fit(tmp_path / name, tmp_path) == code
        said = line(capsys)
        assert told in said
        assert "v2m prepare" in said


@pytest.mark.parametrize("left", [0, 5000])
def test_empty_or_truncated_tar_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str], left: int) -> None:
    path = made.write(tmp_path / "in", (2,)) / "00000.tar"
    path.write_bytes(path.read_bytes()[:left])
    assert fit(tmp_path / "in", tmp_path) == ENVIRONMENT
    assert f"00000.tar has {left} bytes instead of" in line(capsys)


def test_other_schema_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.write(tmp_path / "in", (2,)) / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    assert fit(tmp_path / "in", tmp_path) == ENVIRONMENT
    assert "version 99" in line(capsys)


def test_validation_set_of_another_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.write(tmp_path / "in", (2,))
    made.write(tmp_path / "other", (2,), manifest=replace(made.KEPT, codec="other"))
    assert fit(tmp_path / "in", tmp_path, "--data.validation", str(tmp_path / "other")) == ENVIRONMENT
    assert "prepared with another codec" in line(capsys)


def test_samples_with_nan_features_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(number: int, held: dict[str, bytes]) -> None:
        if number == 0:
            held[FRAMES] = made.saved(np.full((16, 5, 24), np.nan, dtype="float16"))

    made.write(tmp_path / "in", (3,), change=spoil)
    assert fit(tmp_path / "in", tmp_path) == OK
    assert "skipped: sample 'sample0000': frames.npy holds values that are no numbers" in caplog.text


def test_audio_shorter_than_the_crop_is_used_up_to_its_end(tmp_path: Path) -> None:
    assert fit(made.write(tmp_path / "in", (2,), seconds=0.4), tmp_path) == OK


def test_unknown_setting_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.write(tmp_path / "in", (2,))
    assert fit(tmp_path / "in", tmp_path, "--data.bach", "3") == USAGE
    assert "bach" in capsys.readouterr().err


def test_nothing_trainable_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["fit", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]) == USAGE
    )
    assert "there is nothing to learn from: give --data.train" in line(capsys)


def test_predict_without_a_trained_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").touch()
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "broken.ckpt").write_bytes((tmp_path / "other.ckpt").read_bytes()[:200])
    sees = ["--model.init_from", "facebook/musicgen-small", "--model.conditioner.num_layers", "1"]
    videos = ["--data.videos", str(tmp_path / "a.mp4")]
    for given, code, told in (
        ([], USAGE, "name the videos: give --data.videos"),
        (videos, USAGE, "the model is untrained: give --ckpt_path"),
        ([*videos, *sees], USAGE, "the model is untrained: give --ckpt_path"),
        ([*videos, "--ckpt_path", str(tmp_path / "none.ckpt")], USAGE, "none.ckpt"),
        ([*videos, "--ckpt_path", str(tmp_path / "broken.ckpt")], ENVIRONMENT, "broken.ckpt"),
        ([*videos, "--ckpt_path", str(tmp_path / "other.ckpt")], ENVIRONMENT, "is no training checkpoint of v2m"),
    ):
        assert main(["predict", "--trainer.accelerator", "cpu", *given]) == code
        assert told in line(capsys)
    assert not list(tmp_path.glob("*.v2m.*"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--trainer.strategy fsdp", '"fsdp" requires a GPU'),
        ("--trainer.strategy nonsense", "invalid strategy name: \"strategy='nonsense'\""),
        ("--trainer.devices 0", "not a valid input using cpu"),
        ("--trainer.precision bf16-true", "give --trainer.precision bf16-mixed"),
        ("--model.lora.rank 4", "lora adapts an existing model: give init_from"),
        ("--model.lora.rank 0", "lora: rank 0 must be 1 or more"),
        ("--model.lm.dim -2", "dim -2 must be 1 or more"),
    ],
)
def test_invalid_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, said: str) -> None:
    made.write(tmp_path / "in", (2,))
    assert fit(tmp_path / "in", tmp_path, *more.split()) == USAGE
    assert said in line(capsys)


def test_full_disk_during_a_checkpoint_keeps_the_last_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those before it are whole, nothing of it is left, and with room the same command goes on."""
    folder, root = made.write(tmp_path / "in", (2,)), tmp_path / "run"
    assert fit(folder, root, "--trainer.max_steps", "2") == OK
    with file_size_limit(100_000):
        assert fit(folder, root, "--trainer.max_steps", "4") == DISK
    assert "too full for the checkpoint" in line(capsys)
    assert names(root / "checkpoints") == ["step00000002.ckpt"]
    assert fit(folder, root, "--trainer.max_steps", "4") == OK
    assert names(root / "checkpoints") == ["step00000002.ckpt", "step00000004.ckpt"]


def test_really_full_disk_during_a_checkpoint_keeps_the_last_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.write(tmp_path / "in", (2,))
    with small_disk(tmp_path / "disk", "200k") as disk:
        assert fit(folder, disk) == DISK
        assert "No space left on device" in line(capsys)
        assert names(disk / "checkpoints") == []


def test_other_sizes_in_the_folder_of_a_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.write(tmp_path / "in", (2,))
    assert fit(folder, tmp_path / "run") == OK
    assert fit(folder, tmp_path / "run", "--trainer.max_steps", "2", "--model.lm.dim", "64") == USAGE
    told = line(capsys)
    assert "was trained with lm.dim 32, not 64: give those of the checkpoint" in told
    assert "another --trainer.default_root_dir" in told
    assert fit(folder, tmp_path / "other", "--model.lm.dim", "64") == OK


def test_validation_interval_longer_than_an_epoch_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.write(tmp_path / "in", (2,))
    interval = ["--data.validation", str(folder), "--trainer.val_check_interval", "50"]
    assert fit(folder, tmp_path / "run", *interval) == USAGE
    told = line(capsys)
    assert "--trainer.val_check_interval (50) must be less than or equal to the number of the training batches" in told
    assert "set --trainer.check_val_every_n_epoch null" in told
    assert fit(folder, tmp_path / "run", *interval, "--trainer.check_val_every_n_epoch", "null") == OK


DIVERGING = ["--model.optim.lr", "1e30", "--trainer.gradient_clip_val", "null", "--trainer.max_steps", "4"]


def test_loss_that_is_not_finite_ends_the_run_unsaved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.write(tmp_path / "in", (3, 3), seconds=2.0)
    assert fit(folder, tmp_path, *DIVERGING, "--checkpoints.every_n_train_steps", "1") == USAGE
    told = line(capsys)
    assert "the loss is not finite at step 2 (batch 1 of epoch 0)" in told
    assert f"the last good checkpoint is '{tmp_path / 'checkpoints/step00000001.ckpt'}'" in told
    assert names(tmp_path / "checkpoints") == ["step00000001.ckpt"]
    assert fit(folder, tmp_path / "none", *DIVERGING) == USAGE
    assert "there is no checkpoint before it" in line(capsys)
    assert not (tmp_path / "none/checkpoints").exists()


def test_anomaly_ends_the_run_in_one_line_that_names_the_operation(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "in", (3, 3), seconds=2.0)
    more = [*DIVERGING, "--checkpoints.every_n_train_steps", "1", "--trainer.detect_anomaly", "true"]
    command = [sys.executable, "train.py", *words(folder, tmp_path, *more)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == USAGE, done.stderr
    told = done.stderr.splitlines()
    assert re.search(r"^train\.py: \w+Backward0 gave NaN in the backward pass of step 2, so the run ends", told[-1])
    assert f"the last good checkpoint is '{tmp_path / 'checkpoints/step00000001.ckpt'}'" in told[-1]
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss of the step that spoils them is still finite."""
    folder, path = made.write(tmp_path / "in", (2,)), tmp_path / "checkpoints/step00000001.ckpt"
    assert fit(folder, tmp_path) == OK
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"][:] = torch.inf
    torch.save(checkpoint, path)
    assert fit(folder, tmp_path, "--trainer.max_steps", "2") == USAGE
    assert "weights are not finite after step 2" in line(capsys)
    assert names(tmp_path / "checkpoints") == [path.name]


def test_terminal_shows_nothing_that_no_command_changes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = words(made.write(tmp_path / "in", (2,)), tmp_path, "--trainer.max_steps", "1")
    start = arguments.index("--trainer.enable_model_summary")
    assert main([*arguments[:start], *arguments[start + 2 :]]) == OK
    shown = "".join(capfd.readouterr())
    assert [words for words in ("FLOPs", "TPU", "Tip", "Warning", "deprecated") if words in shown] == []


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("every_n_validations", "-1", "every_n_validations -1 must be 0 or more"),
        ("videos", "nowhere.mp4", "'nowhere.mp4': no such file or folder"),
        ("sampling.top_p", "2", "top_p 2 must lie above 0"),
    ],
)
def test_invalid_audio_samples_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, told: str
) -> None:
    made.write(tmp_path / "in", (2,))
    assert (
        fit(tmp_path / "in", tmp_path, "--audio_samples.every_n_validations", "1", f"--audio_samples.{flag}", value)
        == USAGE
    )
    assert told in capsys.readouterr().err
