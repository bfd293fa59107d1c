"""MusicGen in transformers' layout across the border, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.fixtures.tiny import encodec
from tests.fixtures.tiny import musicgen as tiny
from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.musicgen import (
    check_config,
    config_from_v2m,
    config_to_v2m,
    from_v2m,
    merge_state,
    split_state,
    to_v2m,
)
from v2m.models.music_model import MusicConfig, MusicModel

KEYS_OF_4 = json.loads((Path(__file__).parent / "musicgen_keys_transformers_4.json").read_text())["keys"]


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read(tiny.write_transformers(tmp_path_factory.mktemp("musicgen")))


@pytest.mark.parametrize("kind", [{}, {"stereo": True}, {"melody": True}])
def test_musicgen_round_trip_is_bit_identical(kind: dict[str, bool], tmp_path: Path) -> None:
    config, state = read(tiny.write_transformers(tmp_path, **kind))
    parts = split_state(state)
    plain, own = config_to_v2m(config, parts.music_model), to_v2m(parts.music_model)
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in MusicModel(MusicConfig.from_dict(plain)).state_dict().items()
    }
    back = merge_state(from_v2m(own), parts.text_encoder, parts.audio_encoder)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in back)
    again = config_from_v2m(plain, text_encoder=config["text_encoder"], audio_encoder=config["audio_encoder"])
    assert config_to_v2m(again, parts.music_model) == plain
    same = {name: value for name, value in again["decoder"].items() if not name.endswith("dropout")}
    assert {name: config["decoder"][name] for name in same} == same


@pytest.mark.parametrize("kind", KEYS_OF_4)
@pytest.mark.parametrize("embedding", ["shared.weight", "encoder.embed_tokens.weight"])
def test_export_has_every_key_that_transformers_4_saves(kind: str, embedding: str, tmp_path: Path) -> None:
    """Its loaders leave a weight that the file lacks as it lies in memory; T5's embedding is there under one name."""
    _, state = read(tiny.write_transformers(tmp_path, melody=kind == "musicgen_melody"))
    parts = split_state(state)
    text = {embedding if name == "shared.weight" else name: value for name, value in parts.text_encoder.items()}
    back = merge_state(from_v2m(to_v2m(parts.music_model)), text, parts.audio_encoder)
    for new, old in encodec.OLD_WEIGHT_NORM_KEYS.items():  # of the published files, which 4 reads as well
        back = {name.replace(old, new): value for name, value in back.items()}
    assert sorted(back) == KEYS_OF_4[kind]


def test_position_table_has_the_dtype_of_the_weights(published: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    half = {name: value.half() for name, value in to_v2m(split_state(published[1]).music_model).items()}
    table = from_v2m(half)["decoder.model.decoder.embed_positions.weights"]
    assert (table.dtype, table.shape) == (torch.float16, (2048, tiny.DIM))


def test_decoder_alone_is_converted(published: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    config, state = published
    alone = {name.removeprefix("decoder."): value for name, value in state.items() if name.startswith("decoder.")}
    plain = config_to_v2m(config["decoder"], split_state(alone).music_model)
    assert plain["text_dim"] is None
    back = from_v2m(to_v2m(alone), composite=False)
    assert back.keys() == alone.keys()
    assert config_from_v2m(plain)["architectures"] == ["MusicgenForCausalLM"]


def test_other_families_are_refused(published: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    config, state = published
    own = split_state(state).music_model
    with pytest.raises(DependencyError, match="model_type 'llama', which is no MusicGen"):
        check_config({"model_type": "llama"})
    with pytest.raises(DependencyError, match=r"config.json of musicgen lacks decoder, audio_encoder"):
        check_config({"model_type": "musicgen", "text_encoder": {}})
    with pytest.raises(DependencyError, match="scale_embedding True"):
        config_to_v2m(config | {"decoder": config["decoder"] | {"scale_embedding": True}}, own)
    with pytest.raises(DependencyError, match="num_codebooks is 8 but 4 by the weights"):
        config_to_v2m(config | {"decoder": config["decoder"] | {"num_codebooks": 8}}, own)
    with pytest.raises(DependencyError, match="cross_attention is False but True by the weights"):
        config_to_v2m(config | {"model_type": "musicgen_melody"}, own)
    with pytest.raises(DependencyError, match=r"hold no enc_to_dec_proj.weight"):
        config_to_v2m(config, {name: value for name, value in own.items() if "enc_to" not in name})
    with pytest.raises(DependencyError, match=r"embed_tokens.0.weight is missing"):
        config_to_v2m(config, {})


def test_weights_of_other_models_are_refused(published: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    own = split_state(published[1]).music_model
    with pytest.raises(
        DependencyError, match=r"it has no 'model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight'"
    ):
        to_v2m({"model.embed_tokens.weight": torch.zeros(1), "model.layers.0.mlp.up_proj.weight": torch.zeros(1)})
    name = "decoder.model.decoder.layers.1.self_attn.k_proj.weight"
    with pytest.raises(DependencyError, match=r"lm.layers.1.self_attention.key.weight is not"):
        to_v2m({key: value for key, value in own.items() if key != name})


def test_models_unknown_to_transformers_are_refused() -> None:
    plain = MusicConfig().to_dict()
    lm = plain["lm"]
    for given, told in (
        (plain | {"lm": lm | {"delays": [0, 0, 1, 2]}}, r"its delays are not \[0, 0, 1, 2\]"),
        (plain | {"conditioner": {"kind": "vidmuse"}}, "no visual conditioner"),
        (plain | {"num_chroma": 12}, "its layers do not attend to melodies"),
        (plain | {"text_dim": 1024}, "no projection of 1024 wide tokens"),
    ):
        with pytest.raises(UsageError, match=told):
            config_from_v2m(given)
