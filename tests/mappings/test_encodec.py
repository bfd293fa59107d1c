"""Names and settings of EnCodec across the border, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from tests.fixtures.tiny import encodec as tiny
from v2m.core.errors import DependencyError
from v2m.mappings.encodec import (
    config_from_transformers,
    config_to_transformers,
    from_transformers,
    resolve_references,
    to_transformers,
)

NORM = "parametrizations.weight.original"
RENAMED = {
    "encoder.model.0.conv.conv.weight_g": f"encoder.layers.0.conv.{NORM}0",
    "encoder.model.0.conv.conv.weight_v": f"encoder.layers.0.conv.{NORM}1",
    "encoder.model.1.block.3.conv.conv.bias": "encoder.layers.1.block.3.conv.bias",
    "encoder.model.3.conv.conv.bias": "encoder.layers.3.conv.bias",
    "encoder.model.13.lstm.weight_ih_l1": "encoder.layers.13.lstm.weight_ih_l1",
    "encoder.model.15.conv.conv.bias": "encoder.layers.15.conv.bias",
    "decoder.model.0.conv.conv.bias": "decoder.layers.0.conv.bias",
    "decoder.model.1.lstm.bias_hh_l0": "decoder.layers.1.lstm.bias_hh_l0",
    "decoder.model.3.convtr.convtr.weight_v": f"decoder.layers.3.conv.{NORM}1",
    "decoder.model.4.block.1.conv.conv.weight_g": f"decoder.layers.4.block.1.conv.{NORM}0",
    "decoder.model.12.convtr.convtr.bias": "decoder.layers.12.conv.bias",
    "decoder.model.15.conv.conv.weight_v": f"decoder.layers.15.conv.{NORM}1",
    "quantizer.vq.layers.3._codebook.embed_avg": "quantizer.layers.3.codebook.embed_avg",
    "quantizer.vq.layers.0._codebook.inited": "quantizer.layers.0.codebook.inited",
}
SHAPES: list[dict[str, Any]] = [
    {},
    {"use_conv_shortcut": True, "num_residual_layers": 2},
    {"norm_type": "time_group_norm"},
]


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_encodec_round_trip_keeps_every_weight(sizes: dict[str, Any]) -> None:
    state = EncodecModel(tiny.make_config(**sizes)).state_dict()
    theirs = from_transformers(state)
    assert from_transformers(tiny.old_weight_norm_keys(state)).keys() == theirs.keys()
    back = to_transformers(theirs)
    assert back.keys() == state.keys()
    assert all(back[key] is state[key] for key in state)


def test_each_kind_of_weight_is_renamed() -> None:
    state = EncodecModel(tiny.make_config()).state_dict()
    found = from_transformers(state)
    for old, new in RENAMED.items():
        assert found[old] is state[new], old


def test_shortcuts_and_group_norms_are_renamed() -> None:
    state = EncodecModel(tiny.make_config(norm_type="time_group_norm", use_conv_shortcut=True)).state_dict()
    found = from_transformers(state)
    pairs = {
        "encoder.model.1.shortcut.conv.conv.weight": "encoder.layers.1.shortcut.conv.weight",
        "encoder.model.1.shortcut.conv.norm.bias": "encoder.layers.1.shortcut.norm.bias",
        "decoder.model.3.convtr.norm.weight": "decoder.layers.3.norm.weight",
        "decoder.model.15.conv.norm.weight": "decoder.layers.15.norm.weight",
    }
    assert all(found[old] is state[new] for old, new in pairs.items())


@pytest.mark.parametrize(
    "key", ["encoder.model.0.conv.conv.weight_h", "encoder.layer.0.conv.bias", "lm.0.weight", "quantizer.vq.layers.0.x"]
)
def test_unknown_weight_is_refused_by_name(key: str) -> None:
    state = EncodecModel(tiny.make_config()).state_dict()
    with pytest.raises(DependencyError, match=key):
        to_transformers(from_transformers(state) | {key: torch.zeros(1)})
    with pytest.raises(DependencyError, match=key):
        from_transformers(state | {key: torch.zeros(1)})


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"use_causal_conv": True, "trim_right_ratio": 0.5, "use_conv_shortcut": True},
        {"codebook_size": 2048, "normalize": True},
    ],
    ids=str,
)
def test_settings_round_trip_is_identical(sizes: dict[str, Any]) -> None:
    whole = tiny.make_config(**sizes)
    again = EncodecConfig(**config_to_transformers(config_from_transformers(whole.to_dict())))
    assert again.to_dict() == whole.to_dict()


def test_bandwidth_keeps_any_number_of_codebooks() -> None:
    """Thousands are divided and multiplied by, which rounds 31 codebooks of 128 entries at 75 frames a second to 30."""
    for codebooks in range(1, 33):
        for entries, rate in ((64, 32000), (128, 48000), (2048, 32000)):
            settings = tiny.audiocraft_config(codebook_size=entries, sample_rate=rate)
            settings["rvq"]["n_q"] = codebooks
            config = EncodecConfig(**config_to_transformers(settings))
            assert config.num_quantizers == codebooks
            assert config_from_transformers(config.to_dict())["rvq"]["n_q"] == codebooks


def test_references_between_settings_are_resolved() -> None:
    settings = tiny.audiocraft_config()
    plain = config_to_transformers(settings)
    settings["encodec"] |= {"sample_rate": "${sample_rate}", "causal": "${seanet.causal}", "channels": "${channels}"}
    settings["channels"] = "${seanet.channels}"
    assert config_to_transformers(settings) == plain
    assert resolve_references(settings)["encodec"]["channels"] == 1
    for wrong in ("${nowhere}", "${encodec.sample_rate}"):
        settings["encodec"]["sample_rate"] = wrong
        with pytest.raises(DependencyError, match="refer to"):
            config_to_transformers(settings)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("seanet", "activation", "ReLU"),
        ("seanet", "norm", "spectral_norm"),
        ("seanet", "lstm", 0),
        ("seanet", "disable_norm_outer_blocks", 2),
        ("seanet", "encoder", {"causal": True}),
        ("seanet", "decoder", {"final_activation": "Tanh"}),
        ("encodec", "quantizer", "no_quant"),
    ],
)
def test_settings_unknown_to_transformers_are_refused(section: str, name: str, value: object) -> None:
    settings = tiny.audiocraft_config()
    settings[section][name] = value
    with pytest.raises(DependencyError, match=next(iter(value)) if isinstance(value, dict) else name):
        config_to_transformers(settings)


@pytest.mark.parametrize("section", ["seanet", "rvq", "encodec"])
def test_missing_settings_are_refused_by_name(section: str) -> None:
    settings = tiny.audiocraft_config()
    del settings[section]
    with pytest.raises(DependencyError, match=f"lack {section}"):
        config_to_transformers(settings)


def test_settings_of_other_models_are_refused() -> None:
    with pytest.raises(DependencyError, match="compression_model is None"):
        config_to_transformers({"lm_model": "transformer_lm"})
    with pytest.raises(DependencyError, match="model_type is 'dac'"):
        config_from_transformers({"model_type": "dac"})
    with pytest.raises(DependencyError, match="chunks"):
        config_from_transformers(tiny.make_config().to_dict() | {"chunk_length_s": 1.0})
    with pytest.raises(DependencyError, match="num_filters"):
        config_from_transformers({k: v for k, v in tiny.make_config().to_dict().items() if k != "num_filters"})
