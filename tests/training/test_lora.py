"""Adapters under the trainer: what learns, what is kept, what a run goes on from, what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from tests.fixtures.tiny import shards as made
from tests.training.test_checkpoints import Ending, alike, data, state
from tests.training.test_checkpoints import run as training
from v2m import checkpoints
from v2m.checkpoints import lightning_ckpt
from v2m.core.errors import DependencyError, UsageError
from v2m.data.collate import Batch
from v2m.models.lm import LMConfig
from v2m.models.lora import LORA_A, LORA_B, LoRAConfig, is_trainable
from v2m.models.music_model import MusicConfig
from v2m.models.visual_conditioner import ConditionerConfig
from v2m.training.module import LitMusicLM
from v2m.training.optim import OptimConfig

LM = LMConfig(dim=32, num_layers=1, num_heads=4, codebook_size=64)
SEES = ConditionerConfig(num_layers=1, num_heads=2, head_dim=16, ffn_dim=32)
FEW = LoRAConfig(4, 8.0, 0.1)
RATES = OptimConfig(lr=1e-2, lm_lr_scale=0.0, warmup_steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("shards"), (4, 5), seconds=3.0)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    checkpoints.V2M(MusicConfig(LM, 16)).save_pretrained(tmp_path / "start")
    return tmp_path / "start"


def adapted(start: Path, lora: LoRAConfig | None) -> LitMusicLM:
    return LitMusicLM(str(start), conditioner=SEES, optim=RATES, window=1.0, lora=lora)


def run(
    folder: Path, root: Path, start: Path, ending: Ending | None = None, lora: LoRAConfig | None = FEW
) -> LitMusicLM:
    model = adapted(start, lora)
    training(folder, root, ending or Ending(0), model=model)
    return model


def test_lora_trains_and_saves_new_weights_only(folder: Path, tmp_path: Path, start: Path) -> None:
    model = run(folder, tmp_path, start)
    own = model.music_model.state_dict()
    base = checkpoints.V2M.from_pretrained(str(start)).state_dict()
    assert all(
        torch.equal(value, own[n if n in own else n.replace(".weight", ".base_layer.weight")])
        for n, value in base.items()
    )
    held = state(tmp_path)
    names = {f"model.{name}" for name in own if is_trainable(name)}
    assert held["state_dict"].keys() == held["ema"].keys() == names
    assert {name.split(".")[1] for name in names} == {"lm", "conditioner", "null_text", "null_video"}
    assert len(held["optimizer_states"][0]["state"]) == len(names)
    assert {group["name"].removesuffix("_no_decay") for group in held["optimizer_states"][0]["param_groups"]} == {
        "conditioner"
    }
    assert all(held["state_dict"][name].abs().max() > 0 for name in names if LORA_B in name)  # they began at 0


def test_resumed_lora_run_is_bit_identical(folder: Path, tmp_path: Path, start: Path) -> None:
    """Dropout of adapters included."""
    whole, ended, again = Ending(0), Ending(4), Ending(0)
    run(folder, tmp_path / "whole", start, whole)
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "cut", start, ended)
    run(folder, tmp_path / "cut", start, again)
    assert ended.losses + again.losses == whole.losses
    one, two = state(tmp_path / "whole"), state(tmp_path / "cut")
    for name in ("state_dict", "ema", "optimizer_states", "rng_state", "v2m"):
        assert alike(one[name], two[name]), name


def test_exported_model_equals_trained_ema_model(folder: Path, tmp_path: Path, start: Path) -> None:
    """The averages, merged."""
    model = run(folder, tmp_path, start)
    path = tmp_path / "checkpoints/step00000009.ckpt"
    plain = lightning_ckpt.load_training_checkpoint(path)
    assert not [name for name in plain.state_dict() if LORA_A in name or ".base_layer." in name]
    average = {name.removeprefix("model."): value for name, value in state(tmp_path)["ema"].items()}
    assert model.music_model.load_state_dict(average, strict=False).unexpected_keys == []
    model.music_model.eval()
    batch = next(iter(data(folder).val_dataloader()))
    assert isinstance(batch, Batch)
    codes = batch.codes[:, :, :20]
    with torch.no_grad():
        wanted, found = (each(codes, batch.text, batch.visual) for each in (model.music_model, plain))
        begin = checkpoints.V2M.from_pretrained(str(start))(codes, batch.text, None)
    assert (wanted - found).abs().max() < 1e-5
    assert (begin - found).abs().max() > 0.1
    plain.save_pretrained(tmp_path / "out")
    assert alike(checkpoints.V2M.from_pretrained(str(tmp_path / "out")).state_dict(), plain.state_dict())


def test_other_base_is_refused_on_resume_and_export(folder: Path, tmp_path: Path, start: Path) -> None:
    run(folder, tmp_path, start)
    with pytest.raises(UsageError, match=r"trained with other lora.rank: give those \(init_from .*, rank 4, alpha 8"):
        run(folder, tmp_path, start, lora=LoRAConfig(2, 8.0))
    with pytest.raises(UsageError, match=r"trained with other the weights of the start, lora.rank, lora.alpha"):
        run(folder, tmp_path, start, lora=None)
    checkpoints.V2M(MusicConfig(LM, 16)).save_pretrained(start)  # other random weights
    with pytest.raises(UsageError, match=r"trained with other the weights of the start: give"):
        run(folder, tmp_path, start)
    with pytest.raises(DependencyError, match=r"has other weights than .* was trained from"):
        lightning_ckpt.load_training_checkpoint(tmp_path / "checkpoints/step00000009.ckpt")


def test_validate_and_predict_load_ema_weights(folder: Path, tmp_path: Path, start: Path) -> None:
    """What goes on knows the adapters; what only plays is made from the checkpoint, merged."""
    run(folder, tmp_path, start)
    path = tmp_path / "checkpoints/step00000009.ckpt"
    average = state(tmp_path)["ema"]
    measured = adapted(start, FEW)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    lightning.Trainer(**quiet).validate(measured, data(folder), ckpt_path=str(path), weights_only=True, verbose=False)
    held = measured.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in average.items())
    played = LitMusicLM()
    checkpoint_of: dict[str, Any] = torch.load(path, weights_only=True)
    played.on_load_checkpoint(checkpoint_of)
    played.load_state_dict(checkpoint_of["state_dict"])
    assert alike(played.music_model.state_dict(), lightning_ckpt.load_training_checkpoint(path).state_dict())


def test_lora_without_init_from_is_refused() -> None:
    with pytest.raises(UsageError, match="lora adapts an existing model: give init_from"):
        LitMusicLM(lm=LM, lora=LoRAConfig())
