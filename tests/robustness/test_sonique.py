"""User errors with the recipe sonique: one line, the right exit code, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import names
from tests.fixtures.tiny import sonique as tiny
from tests.robustness.test_musicgen import Bomb
from v2m.cli.score import main

TAGS = ("--tags.genres", "rock", "--tags.instruments", "drums", "--tags.moods", "calm", "--tags.tempo", "140")
FLAGS = (*TAGS, "--tags.key", "D major", "--generator.overlap", "0.3", "--generator.sampling.steps", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("model") / "model")


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / tiny.CHECKPOINT, weights_only=True)["state_dict"]


def save(folder: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"state_dict": state}, folder / tiny.CHECKPOINT)


def another_model(folder: Path) -> None:
    config = json.loads((folder / tiny.CONFIG_FILE).read_text())
    config["model"]["diffusion"]["type"] = "dit"
    (folder / tiny.CONFIG_FILE).write_text(json.dumps(config))


def more_layers(folder: Path) -> None:
    (folder / tiny.CONFIG_FILE).write_text(json.dumps(tiny.make_config(num_blocks=[2, 2, 2, 3])))


def odd_groups(folder: Path) -> None:
    (folder / tiny.CONFIG_FILE).write_text(json.dumps(tiny.make_config(resnet_groups=24)))


def no_json(folder: Path) -> None:
    (folder / tiny.CONFIG_FILE).unlink()


def no_checkpoint(folder: Path) -> None:
    (folder / tiny.CHECKPOINT).unlink()


def two_checkpoints(folder: Path) -> None:
    shutil.copy(folder / tiny.CHECKPOINT, folder / "ckpts" / "other.ckpt")


def code(folder: Path) -> None:
    torch.save({"state_dict": Bomb(folder / "run")}, folder / tiny.CHECKPOINT)


def truncated(folder: Path) -> None:
    path = folder / tiny.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-2000])


def no_state(folder: Path) -> None:
    torch.save({"epoch": 1}, folder / tiny.CHECKPOINT)


def not_a_number(folder: Path) -> None:
    state = state_of(folder)
    state["model.model.to_time.0.1.bias"][0] = torch.nan
    save(folder, state)


def no_table(folder: Path) -> None:
    state = state_of(folder)
    del state["conditioner.conditioners.seconds_total.int_embedder.weight"]
    save(folder, state)


def no_clap(folder: Path) -> None:
    (folder / tiny.CLAP).unlink()


def another_clap(folder: Path) -> None:
    torch.save({"state_dict": {"module.audio_branch.x": torch.zeros(1)}}, folder / tiny.CLAP)


def clap_outside(folder: Path) -> None:
    config = json.loads((folder / tiny.CONFIG_FILE).read_text())
    config["model"]["conditioning"]["configs"][0]["config"]["clap_ckpt_path"] = "../clap.ckpt"
    (folder / tiny.CONFIG_FILE).write_text(json.dumps(config))


def no_such_layer(folder: Path) -> None:
    config = json.loads((folder / tiny.CONFIG_FILE).read_text())
    config["model"]["conditioning"]["configs"][0]["config"]["feature_layer_ix"] = -9
    (folder / tiny.CONFIG_FILE).write_text(json.dumps(config))


def broken_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (another_model, "diffusion is 'dit', not 'adp_cfg_1d'"),
        (more_layers, "these are not the weights of the model"),
        (odd_groups, "no multiple of 24 groups"),
        (no_json, "lacks best_model.json"),
        (no_checkpoint, "the model's checkpoint, .ckpt or .safetensors, is not in "),
        (two_checkpoints, "holds other.ckpt, stable_ep=220.ckpt: give one of these files as --generator.model"),
        (code, "holds code and is refused"),
        (truncated, "is truncated or no PyTorch file"),
        (no_state, "holds no 'state_dict' of tensors"),
        (not_a_number, "infinite or no numbers: model.model.to_time.0.1.bias"),
        (no_table, "has no table (513, 64) for seconds_total"),
        (no_clap, "clap.ckpt' is missing"),
        (another_clap, "has no text branch"),
        (clap_outside, "names a file outside its folder and is refused: '../clap.ckpt'"),
        (no_such_layer, "has 3 layers, and no hidden state -9"),
        (broken_tokenizer, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_broken_checkpoint_is_one_line(
    clip: Path, model: Path, capsys: pytest.CaptureFixture[str], spoil: object, told: str
) -> None:
    assert callable(spoil)
    folder = Path(shutil.copytree(model, clip.parent / "spoilt"))
    spoil(folder)
    found = main([str(clip), "--recipe", "sonique", "--generator.model", str(folder), *FLAGS])
    said = capsys.readouterr().err.splitlines()
    assert (found, len(said)) == (4, 1), said
    assert told in said[0]
    assert not (folder / "run").exists()
    assert names(clip.parent) == ["cuts.mp4", "spoilt"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--generator.sampling.sampler", "euler"], "euler"),
        (["--generator.sampling.steps", "0"], "steps 0 must be 1 to 1000"),
        (["--generator.sampling.sigma_max", "0.01"], "sigma_min 0.03 must lie above 0 and below sigma_max 0.01"),
        (["--generator.sampling.cfg_scale", "-1"], "cfg_scale -1 must be 0 to 100"),
        (["--generator.melody_strength", "2"], "melody_strength 2 must be 0 to 1"),
        (["--generator.overlap", "0.5"], "overlap 0.5 s is more than a third of the 1.02 s"),
        (["--generator.precision", "int4"], "int4"),
        (["--generator.device", "tpu"], "device 'tpu' is none of this machine's"),
        (["--melody", "README.md"], "cannot be read as sound"),
        (["--reference", "README.md"], "cannot do --reference; it can do --inpaint, --melody"),
        (["--inpaint", "1:9", "--inpaint-source", "README.md"], "--inpaint 1:9 lies outside of the video"),
        (["--inpaint", "1:2"], "there is no earlier music"),
        (["--inpaint", "2:1"], "--inpaint '2:1': give two rising seconds of the video, such as 8:12.5 or 0:08-0:12.5"),
        (["--inpaint", "a:b"], "--inpaint 'a:b': give two rising seconds"),
        (["--inpaint", "1"], "--inpaint '1': give two rising seconds"),
        (["--inpaint", "nan:inf"], "--inpaint 'nan:inf': give two rising seconds"),
        (["--inpaint", "-1:2"], "--inpaint"),
        (["--inpaint", "1:2", "--inpaint-source", "gone.wav"], "inpaint-source 'gone.wav': no such file"),
        (["--inpaint", "1:2", "--inpaint-source", "README.md"], "cannot be read as sound"),
        (["--inpaint-source", "README.md"], "say with --inpaint a:b which seconds to write anew"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_wrong_flag_is_one_line(
    clip: Path, model: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    root = Path(__file__).parents[2]
    flags = [str(root / word) if (root / word).is_file() else word for word in flags]
    found = main([str(clip), "--recipe", "sonique", "--generator.model", str(model), *FLAGS, *flags])
    said = capsys.readouterr().err.splitlines()
    assert (found, len(said)) == (2, 1), said
    assert told in said[0]
    assert names(clip.parent) == ["cuts.mp4"]


def test_missing_weights_are_named(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert main([str(clip), "--recipe", "sonique", *FLAGS]) == 4
    (said,) = capsys.readouterr().err.splitlines()
    assert "SONIQUE's weights are not here: unpack the archive that github.com/zxxwxyyy/sonique links to" in said
    assert str(tmp_path / "none" / "sonique") in said


def test_recipe_without_inpainting_refuses_inpaint(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(clip), "--recipe", "musicgen", "--inpaint", "1:2"]) == 2
    assert "the generator MusicGen cannot do --inpaint" in capsys.readouterr().err
