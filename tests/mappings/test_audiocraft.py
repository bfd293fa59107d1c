"""MusicGen in audiocraft's layout across the border, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.fixtures.tiny import musicgen as tiny
from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.audiocraft import config_from_v2m, config_to_v2m, from_v2m, text_encoder_name, to_v2m
from v2m.models.music_model import MusicConfig, MusicModel

KINDS: tuple[dict[str, Any], ...] = ({}, {"stereo": True}, {"melody": True})


def changed(**places: Any) -> dict[str, Any]:
    """Settings with others at `section__name`."""
    settings = tiny.audiocraft_config()
    for name, value in places.items():
        *sections, last = name.split("__")
        at = settings
        for section in sections:
            at = at[section]
        at[last] = value
    return settings


@pytest.mark.parametrize("kind", KINDS)
def test_audiocraft_round_trip_is_bit_identical(kind: dict[str, Any]) -> None:
    settings = tiny.audiocraft_config(**kind)
    state = tiny.audiocraft_model(settings).state_dict()
    plain, own = config_to_v2m(settings, state), to_v2m(state)
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in MusicModel(MusicConfig.from_dict(plain)).state_dict().items()
    }
    back = from_v2m(own)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert config_to_v2m(config_from_v2m(plain), state) == plain
    assert text_encoder_name(settings) == text_encoder_name(config_from_v2m(plain)) == "t5-base"


def test_attention_under_pytorch_names_is_converted() -> None:
    state = tiny.audiocraft_model(tiny.audiocraft_config()).state_dict()
    old = {name.replace("_attn.", "_attn.mha.").replace("tion.", "tion.mha."): value for name, value in state.items()}
    old = {name if "layers" in name else name.replace(".mha", ""): value for name, value in old.items()}
    assert old.keys() != state.keys()
    assert to_v2m(old).keys() == to_v2m(state).keys()


def test_custom_delays_are_kept() -> None:
    state = tiny.audiocraft_model(tiny.audiocraft_config()).state_dict()
    plain = config_to_v2m(changed(codebooks_pattern__delay__delays=[0, 0, 1, 2]), state)
    assert plain["lm"]["delays"] == [0, 0, 1, 2]
    assert config_from_v2m(plain)["codebooks_pattern"]["delay"]["delays"] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"lm_model": "transformer_lm_magnet"}, "lm_model 'transformer_lm_magnet' is not MusicGen's .MAGNeT"),
        ({"lm_model": None}, "lm_model None is not MusicGen's"),
        ({"transformer_lm": None}, "xp.cfg has no section transformer_lm"),
        (
            {"transformer_lm__bias_attn": True, "transformer_lm__norm_first": False},
            "norm_first False; .*bias_attn True",
        ),
        ({"codebooks_pattern__modeling": "parallel"}, "codebooks_pattern.modeling 'parallel'"),
        ({"codebooks_pattern__delay__empty_initial": 2}, "codebooks_pattern.delay.empty_initial"),
        ({"fuser__sum": ["description"]}, r"fuser.sum \['description'\]"),
        ({"fuser__prepend": ["self_wav"]}, "both fuser.cross and fuser.prepend"),
        ({"conditioners__description__t5__finetune": True}, "conditioners.description.t5.finetune True: its T5 was"),
        ({"conditioners__style": {"model": "style"}}, r"conditioners.style \(style\)"),
        ({"conditioners__self_wav": {"model": "style", "style": {"model_name": "clap"}}}, "style.model_name 'clap'"),
        ({"conditioners__self_wav": {"model": "style", "style": {"model_name": "mert"}}}, "fuser.cross with a style"),
        (
            {
                "conditioners__self_wav": {
                    "model": "style",
                    "style": {"model_name": "encodec", "encodec_checkpoint": "//sig/0123"},
                }
            },
            "style.encodec_checkpoint '//sig/0123', which is on no hub",
        ),
        ({"conditioners__description__model": "clap"}, "CLAP embeddings in the place of T5's text"),
        ({"conditioners__chords": {"model": "chords_emb"}}, "JASCO's chords"),
        ({"lm_model": "flow_matching"}, "JASCO, flow matching led by chords, drums and melody"),
        ({"interleave_stereo_codebooks": {"use": True, "per_timestep": True}}, "per_timestep"),
        ({"transformer_lm__dim": 64}, "dim is 64 but 32 by the weights; ffn_dim"),
        ({"transformer_lm__num_layers": 3}, "num_layers is 3 but 2 by the weights"),
        ({"transformer_lm__card": 2048}, "codebook_size is 2048 but 64 by the weights"),
        ({"transformer_lm__n_q": None}, "xp.cfg says no transformer_lm.n_q"),
    ],
)
def test_settings_of_other_models_are_refused(places: dict[str, Any], told: str) -> None:
    state = tiny.audiocraft_model(tiny.audiocraft_config()).state_dict()
    with pytest.raises(DependencyError, match=told) as error:
        config_to_v2m(changed(**places), state)
    assert "\n" not in str(error.value)


def test_weights_of_other_models_are_refused() -> None:
    with pytest.raises(DependencyError, match=r"audiocraft's MusicGen: it has no 'encoder.model.0.bias', 'x.00.y'"):
        to_v2m({"encoder.model.0.bias": torch.zeros(1), "x.00.y": torch.zeros(1)})
    with pytest.raises(DependencyError, match=r"it has no 'emb.N.weight'"):
        to_v2m({"emb.N.weight": torch.zeros(1)})
    with pytest.raises(DependencyError, match=r"emb.0.weight is missing"):
        config_to_v2m(tiny.audiocraft_config(), {})
    with pytest.raises(DependencyError, match=r"has 32 rows, which 3 projections cannot share"):
        to_v2m({"transformer.layers.0.cross_attention.in_proj_weight": torch.zeros(32, 32)})


def test_models_unknown_to_audiocraft_are_refused() -> None:
    plain = MusicConfig().to_dict() | {"conditioner": {"kind": "vidmuse"}}
    with pytest.raises(UsageError, match="no visual conditioner"):
        config_from_v2m(plain)
