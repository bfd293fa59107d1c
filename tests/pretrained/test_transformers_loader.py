"""Loading of transformers models: complete, or one line with the mismatch."""

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


def test_weights_equal_the_file_and_logging_settings_are_restored(folder: Path) -> None:
    logging.enable_progress_bar()
    verbosity = logging.get_verbosity()
    model = load_model(LlamaForCausalLM, folder, CPU, description="a Llama")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == verbosity
    there = load_file(folder / "model.safetensors")
    assert set(model.state_dict()) == set(there)
    assert all(torch.equal(value, there[name]) for name, value in model.state_dict().items())
    assert not any(value.requires_grad for value in model.parameters())


def test_given_state_replaces_the_file_and_keeps_its_dtype(folder: Path) -> None:
    state = {name: (value * 2).bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    model = load_model(LlamaForCausalLM, folder, CPU, description="a Llama", state=state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_excluded_modules_are_not_quantized(folder: Path) -> None:
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
    ("corrupt", "message"),
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
def test_mismatched_weights_are_reported_in_one_line(
    folder: Path,
    corrupt: Callable[[dict[str, Tensor]], object],
    message: str,
    bits: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = load_file(folder / "model.safetensors")
    corrupt(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DependencyError) as error:
        load_model(LlamaForCausalLM, folder, CPU, bits=bits, description="a Llama")
    assert message in str(error.value)
    assert capfd.readouterr().err == ""
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_invalid_config_is_reported_in_one_line(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"num_attention_heads": 4', '"num_attention_heads": "four"'))
    with pytest.raises(DependencyError, match="cannot be loaded as a Llama") as error:
        load_model(LlamaForCausalLM, folder, CPU, description="a Llama")
    assert "\n" not in str(error.value)
