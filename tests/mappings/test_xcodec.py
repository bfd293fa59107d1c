"""Names and weight norm of the codec across the border, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import XcodecConfig, XcodecModel

from tests.fixtures.tiny.xcodec import TINY, write
from v2m.core.errors import DependencyError
from v2m.mappings.xcodec import config_to_transformers, from_transformers, to_transformers

POSITIONS = "semantic_model.encoder.pos_conv_embed.conv"
RENAMED = {
    "encoder.block.0.bias": "acoustic_encoder.conv1.bias",
    "encoder.block.1.block.0.block.0.alpha": "acoustic_encoder.block.0.res_unit1.snake1.alpha",
    "encoder.block.4.block.2.block.3.bias": "acoustic_encoder.block.3.res_unit3.conv2.bias",
    "encoder.block.2.block.3.alpha": "acoustic_encoder.block.1.snake1.alpha",
    "encoder.block.2.block.4.bias": "acoustic_encoder.block.1.conv1.bias",
    "encoder.block.5.alpha": "acoustic_encoder.snake1.alpha",
    "encoder.block.6.bias": "acoustic_encoder.conv2.bias",
    "decoder_2.model.1.block.0.alpha": "acoustic_decoder.block.0.snake1.alpha",
    "decoder_2.model.2.block.1.bias": "acoustic_decoder.block.1.conv_t1.bias",
    "decoder_2.model.3.block.2.block.1.bias": "acoustic_decoder.block.2.res_unit1.conv1.bias",
    "decoder_2.model.4.block.4.block.2.alpha": "acoustic_decoder.block.3.res_unit3.snake2.alpha",
    "decoder_2.model.5.alpha": "acoustic_decoder.snake1.alpha",
    "quantizer.vq.layers.11._codebook.embed": "quantizer.quantizers.11.codebook.embed",
    "quantizer.vq.layers.0._codebook.inited": "quantizer.quantizers.0.codebook.inited",
    "fc_prior.weight": "fc.weight",
    "fc_post1.weight": "fc1.weight",
    "fc_post2.bias": "fc2.bias",
    "encoder_semantic.conv.conv.weight": "encoder_semantic.conv.weight",
    "encoder_semantic.conv_blocks.1.conv.conv.bias": "encoder_semantic.conv_blocks.1.conv.bias",
    "encoder_semantic.conv_blocks.0.res_units.1.conv1.conv.weight": (
        "encoder_semantic.conv_blocks.0.res_units.1.conv1.weight"
    ),
    "decoder_semantic.conv2.conv.weight": "decoder_semantic.conv2.weight",
    "decoder_semantic.conv_blocks.0.res_units.0.conv2.weight": (
        "decoder_semantic.conv_blocks.0.res_units.0.conv2.weight"
    ),
    f"{POSITIONS}.weight_g": f"{POSITIONS}.parametrizations.weight.original0",
    f"{POSITIONS}.weight_v": f"{POSITIONS}.parametrizations.weight.original1",
    "semantic_model.encoder.layer_norm.weight": "semantic_model.encoder.layer_norm.weight",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("xcodec"))


@pytest.fixture(scope="module")
def published(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "final_ckpt/ckpt_00360000.pth", weights_only=True)["codec_model"]


def test_each_kind_of_weight_is_renamed(published: dict[str, Tensor]) -> None:
    found = to_transformers(published)
    for old, new in RENAMED.items():
        assert torch.equal(found[new], published[old]), old


def test_weight_norm_is_fused_by_rows_of_transposed_convolutions_too(published: dict[str, Tensor]) -> None:
    found = to_transformers(published)
    pairs = {"encoder.block.3.block.4": "acoustic_encoder.block.2.conv1"}
    pairs["decoder_2.model.2.block.1"] = "acoustic_decoder.block.1.conv_t1"
    for old, new in pairs.items():
        v, g, weight = published[f"{old}.weight_v"], published[f"{old}.weight_g"], found[f"{new}.weight"]
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), g.flatten())
        torch.testing.assert_close(weight[3] / weight[3].norm(), v[3] / v[3].norm())
        assert not torch.allclose(weight, v, rtol=0.05), "the norms differ, so that fusing them says something"


def test_converted_names_are_exactly_the_models(folder: Path, published: dict[str, Tensor]) -> None:
    semantic = json.loads((folder / "semantic_ckpts/hf_1_325000/config.json").read_text())
    wanted = config_to_transformers(
        {"target_bandwidths": [0.5, 1, 1.5, 2, 4, 6], "D": TINY.latent}, semantic, published
    )
    with torch.device("meta"):
        model = XcodecModel(XcodecConfig(**wanted))
    found = to_transformers(published)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_xcodec_round_trip_keeps_every_weight(published: dict[str, Tensor]) -> None:
    there = to_transformers(published)
    back = from_transformers(there)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in published.items()}
    again = to_transformers(back)
    assert again.keys() == there.keys()
    for key, value in there.items():
        torch.testing.assert_close(again[key], value, rtol=1e-6, atol=0, msg=key)
    for key, value in published.items():
        if not key.endswith("weight_v"):  # whose length is free under weight norm
            torch.testing.assert_close(back[key], value, rtol=1e-6, atol=1e-7, msg=key)


def test_newer_weight_norm_names_are_accepted_for_hubert(published: dict[str, Tensor]) -> None:
    newer = {RENAMED[key] if key.startswith(POSITIONS) and key in RENAMED else key: published[key] for key in published}
    assert newer.keys() != published.keys()
    assert to_transformers(newer).keys() == to_transformers(published).keys()


@pytest.mark.parametrize(
    "key",
    ["quantizer.vq.layers.12._codebook.embed_avg", "encoder.block.7.bias", "fc_prior.alpha", "decoder.layers.0.weight"],
)
def test_unknown_weight_is_refused_by_name(published: dict[str, Tensor], key: str) -> None:
    with pytest.raises(DependencyError, match=key):
        to_transformers(published | {key: torch.zeros(1)})
    with pytest.raises(DependencyError, match=key):
        from_transformers(to_transformers(published) | {key: torch.zeros(1)})


@pytest.mark.parametrize(("kept", "lost"), [("weight_g", "weight_v"), ("weight_v", "weight_g")])
def test_half_weight_norm_is_refused_by_name(published: dict[str, Tensor], kept: str, lost: str) -> None:
    name = "decoder_2.model.0"
    state = {key: value for key, value in published.items() if key != f"{name}.{lost}"}
    with pytest.raises(DependencyError, match=rf"'{name}.{kept}' lacks its {lost}"):
        to_transformers(state)


@pytest.mark.parametrize("wrong", [{"ratios": [8, 8, 4, 2]}, {"bins": 2048}])
def test_settings_of_other_codecs_are_refused(published: dict[str, Tensor], wrong: dict[str, object]) -> None:
    with pytest.raises(DependencyError, match="not YuE's X-Codec"):
        config_to_transformers({"target_bandwidths": [0.5, 6], **wrong}, {}, published)
    with pytest.raises(DependencyError, match="target_bandwidths"):
        config_to_transformers({}, {}, published)
