"""Names and settings cross the border both ways, and nothing crosses it unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

from tests.fixtures.tiny.videollama import make_native, make_original
from v2m.core.errors import DependencyError
from v2m.mappings.videollama import config_to_native, config_to_original, to_native, to_original


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_native(tmp_path_factory.mktemp("tiny") / "native")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_original(tmp_path_factory.mktemp("tiny") / "original")


def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_key_map_round_trip_covers_every_weight(native: Path, original: Path) -> None:
    here, there = (load_file(folder / "model.safetensors") for folder in (native, original))
    assert set(here) == set(to_native(there))
    assert set(there) == set(to_original(here))
    names = {name: name for name in there}
    assert to_original(to_native(names)) == names


def test_original_names_are_the_published_ones(original: Path) -> None:
    names = set(load_file(original / "model.safetensors"))
    assert {
        "model.vision_encoder.embeddings.patch_embedding.weight",
        "model.vision_encoder.encoder.layers.1.self_attn.out_proj.bias",
        "model.vision_encoder.post_layernorm.bias",
        "model.mm_projector.readout.2.weight",
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.norm.weight",
    } <= names


def test_layer_numbers_are_kept() -> None:
    assert to_native({"model.layers.27.mlp.up_proj.weight": 1}) == {
        "model.language_model.layers.27.mlp.up_proj.weight": 1
    }


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.up_proj.bias",
        "model.layers.N.mlp.up_proj.weight",
        "model.layers.00.mlp.up_proj.weight",
        "model.vision_encoder.head.weight",
        "model.vision_model.post_layernorm.weight",
        "model.mm_projector.readout.4.weight",
        "lora.weight",
        "",
    ],
)
def test_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(DependencyError, match=r"it has no .*: give a VideoLLaMA3 checkpoint$") as caught:
        to_native({"model.norm.weight": 0, name: 1})
    assert repr(name) in str(caught.value)


def test_many_unknown_names_are_truncated() -> None:
    with pytest.raises(DependencyError, match="and 97 more"):
        to_native({f"a{number}": 0 for number in range(100)})


def test_converted_config_makes_the_same_model(native: Path, original: Path) -> None:
    made = VideoLlama3Config.from_dict(config_to_native(config(original)))
    model = VideoLlama3ForConditionalGeneration(made)
    assert set(model.state_dict()) - {"lm_head.weight"} == set(to_native(load_file(original / "model.safetensors")))
    wanted = VideoLlama3Config.from_pretrained(native)
    for part in ("text_config", "vision_config"):
        ours, theirs = getattr(made, part).to_dict(), getattr(wanted, part).to_dict()
        settings = set(theirs) - {"architectures", "dtype", "_name_or_path", "initializer_range"}
        assert {name: ours[name] for name in settings} == {name: theirs[name] for name in settings}
    assert made.tie_word_embeddings


def test_config_round_trip_is_identical(original: Path) -> None:
    there = config(original)
    back = config_to_original(config_to_native(there) | {"extra": 1})
    dropped = {"auto_map", "torch_dtype", "transformers_version", "image_token_index"}
    assert {name: back[name] for name in set(there) - dropped} == {name: there[name] for name in set(there) - dropped}
    assert back["image_token_index"] == 151665


def test_untied_embeddings_stay_untied(original: Path) -> None:
    made = config_to_native(config(original) | {"tie_word_embeddings": False})
    assert not VideoLlama3Config.from_dict(made).tie_word_embeddings
    assert config_to_native(config(original))["tie_word_embeddings"]


def test_placeholder_tokens_are_those_of_qwen(original: Path) -> None:
    made = config_to_native(config(original))
    assert (made["image_token_id"], made["video_token_id"]) == (151655, 151656)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "qwen2"}, "'qwen2' is not 'videollama3_qwen2'"),
        ({"vision_encoder": "elsewhere/tower"}, "'elsewhere/tower'"),
        ({"mm_projector_type": "linear"}, "'linear'"),
        ({"vision_encoder_config": None}, "lacks vision_encoder_config"),
        ({"hidden_size": "wide"}, "lacks hidden_size"),
    ],
)
def test_unreadable_configs_are_refused(original: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(DependencyError, match=told):
        config_to_native(config(original) | change)
