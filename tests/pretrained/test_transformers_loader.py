"""A model comes whole out of a folder, or one line says what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.utils import logging

from tests.fixtures.tiny import yue_lm
from v2m.core.errors import DependencyError
from v2m.pretrained.transformers_loader import load_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return yue_lm.write(tmp_path / "llama", 300, hidden=64, layers=1, ffn=128)


def test_the_models_numbers_are_the_files_and_transformers_shows_its_progress_again(folder: Path) -> None:
    logging.enable_progress_bar()
    verbosity = logging.get_verbosity()
    model = load_model(LlamaForCausalLM, folder, CPU, description="a Llama")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == verbosity
    there = load_file(folder / "model.safetensors")
    assert set(model.state_dict()) == set(there)
    assert all(torch.equal(value, there[name]) for name, value in model.state_dict().items())
    assert not any(value.requires_grad for value in model.parameters())


def test_a_given_state_takes_the_place_of_the_folders_with_its_own_precision(folder: Path) -> None:
    state = {name: (value * 2).bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    model = load_model(LlamaForCausalLM, folder, CPU, description="a Llama", state=state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_modules_to_be_kept_whole_are_not_quantized(folder: Path) -> None:
    model = load_model(
        LlamaForCausalLM,
        folder,
        CPU,
        bits=4,
        description="a Llama",
        skip_quantization=["model.layers.0.mlp", "lm_head"],
    )
    layer: Any = model.model.layers[0]
    assert type(layer.self_attn.q_proj).__name__ == "Linear4bit"
    assert type(layer.mlp.up_proj).__name__ == type(model.lm_head).__name__ == "Linear"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("model.norm.weight"), "1 missing keys, such as model.norm.weight"),
        (lambda s: s.update({"extra.weight": torch.ones(2)}), "1 unexpected keys, such as extra.weight"),
        (
            lambda s: s.update({"model.norm.weight": torch.ones(7)}),
            "1 mismatched keys, such as model.norm.weight (7,) instead of (64,)",
        ),
    ],
)
@pytest.mark.parametrize("bits", [None, 4])
def test_what_does_not_fit_is_one_line_that_names_it(
    folder: Path, spoil: Callable[[dict[str, Tensor]], object], words: str, bits: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    state = load_file(folder / "model.safetensors")
    spoil(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DependencyError) as error:
        load_model(LlamaForCausalLM, folder, CPU, bits=bits, description="a Llama")
    assert words in str(error.value)
    assert capfd.readouterr().err == ""
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_that_make_no_model_are_one_line(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"num_attention_heads": 4', '"num_attention_heads": "four"'))
    with pytest.raises(DependencyError, match="cannot be loaded as a Llama") as error:
        load_model(LlamaForCausalLM, folder, CPU, description="a Llama")
    assert "\n" not in str(error.value)
