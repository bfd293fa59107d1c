"""MusicGen between transformers' layout and v2m's: the composite model, and its decoder alone (`MusicgenForCausalLM`).

The composite carries T5 and EnCodec: `split` and `merge` part them from what is ours. Both MusicGen, whose layers
attend to the condition, and MusicGen Melody, where it stands before the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.state_dict_map import (
    check_sizes_match,
    count_indices,
    invert,
    merge_projections,
    rename_keys,
    split_projections,
    truncate_list,
)

MODEL_NAME = "transformers' MusicGen"
MODEL_TYPES = {"musicgen": True, "musicgen_melody": False}  # model_type: whether the layers attend to the condition
DECODER_TYPES = {f"{kind}_decoder": crossing for kind, crossing in MODEL_TYPES.items()}
CHROMA_FRAMES = 235  # of a melody, in `WINDOW` seconds
SEGMENT_DURATION = 30.0
_BOTH = ("weight", "bias")
_ATTENTIONS = {"self_attn": "self_attention", "encoder_attn": "cross_attention"}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_NORMS = {
    "self_attn_layer_norm": "norm_self",
    "encoder_attn_layer_norm": "norm_cross",
    "final_layer_norm": "norm_feedforward",
}
_LAYER_KEYS = {
    **{
        f"{there}.{old}.weight": f"{here}.{new}.weight"
        for there, here in _ATTENTIONS.items()
        for old, new in _PROJECTIONS.items()
    },
    "fc1.weight": "expand.weight",
    "fc2.weight": "contract.weight",
    **{f"{there}.{each}": f"{here}.{each}" for there, here in _NORMS.items() for each in _BOTH},
}
KEY_MAP: dict[str, str | None] = {
    "model.decoder.embed_tokens.N.weight": "lm.embeddings.N.weight",
    "model.decoder.embed_positions.weights": None,  # sines and cosines, which the published files hold
    **{f"model.decoder.layers.N.{there}": f"lm.layers.N.{here}" for there, here in _LAYER_KEYS.items()},
    **{f"model.decoder.layer_norm.{each}": f"lm.norm.{each}" for each in _BOTH},
    "lm_heads.N.weight": "lm.heads.N.weight",
    **{f"enc_to_dec_proj.{each}": f"text.{each}" for each in _BOTH},
    **{f"audio_enc_to_dec_proj.{each}": f"chroma.{each}" for each in _BOTH},
}
_SELF_SPLIT = tuple(f".self_attention.{each}.weight" for each in ("query", "key", "value"))
_CROSS_SPLIT = tuple(f".cross_attention.{each}.weight" for each in ("key", "value"))
_SELF_FUSED, _CROSS_FUSED = ".self_attention.query_key_value.weight", ".cross_attention.key_value.weight"
_REQUIRED_SETTINGS = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": False}


class SplitState(NamedTuple):
    """A composite's weights: `own` are the language model and what leads conditions into it, the others frozen."""

    music_model: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    audio_encoder: dict[str, Tensor]


def split_state(state: Mapping[str, Tensor]) -> SplitState:
    """The composite's weights parted, each under its own model's names; those of a decoder alone are all `own`."""
    parts = SplitState({}, {}, {})
    for name, value in state.items():
        prefix, _, rest = name.partition(".")
        if prefix == "text_encoder":
            parts.text_encoder[rest] = value
        elif prefix == "audio_encoder":
            parts.audio_encoder[rest] = value
        else:
            parts.music_model[name] = value
    return parts


def merge_state(
    music_model: Mapping[str, Tensor], text_encoder: Mapping[str, Tensor], audio_encoder: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The inverse of `split`."""
    text = {f"text_encoder.{name}": value for name, value in text_encoder.items()}
    return text | {f"audio_encoder.{name}": value for name, value in audio_encoder.items()} | dict(music_model)


def to_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The composite's own weights (see `split`), or a decoder's → the state of `v2m.models.music_model.MusicModel`.

    Raises:
        DependencyError: A name is not one of the model's; lists the first of them.
    """
    state = rename_keys({name.removeprefix("decoder."): value for name, value in state.items()}, KEY_MAP, MODEL_NAME)
    return merge_projections(merge_projections(state, _SELF_SPLIT, _SELF_FUSED), _CROSS_SPLIT, _CROSS_FUSED)


def from_v2m(state: Mapping[str, Tensor], *, composite: bool = True) -> dict[str, Tensor]:
    """The inverse of `to_v2m`: the composite's own weights, or those of the decoder alone, without projections."""
    state = split_projections(state, _SELF_FUSED, dict.fromkeys(_SELF_SPLIT, 1))
    state = split_projections(state, _CROSS_FUSED, dict.fromkeys(_CROSS_SPLIT, 1))
    out = rename_keys(state, invert(KEY_MAP), "a MusicGen that transformers can run")
    if not composite:
        return {name: value for name, value in out.items() if "_to_dec_proj." not in name}
    return {name if "_to_dec_proj." in name else f"decoder.{name}": value for name, value in out.items()}


def check_config(config: Mapping[str, Any]) -> None:
    """Raises DependencyError where config.json is of another family, or lacks a section."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES | DECODER_TYPES:
        raise DependencyError(
            f"config.json says model_type {kind!r}, which is no MusicGen ({', '.join(MODEL_TYPES | DECODER_TYPES)})"
        )
    sections = ("decoder", "text_encoder", "audio_encoder") if kind in MODEL_TYPES else ()
    lacking = [name for name in sections if not isinstance(config.get(name), Mapping)]
    if lacking:
        raise DependencyError(f"config.json of {kind} lacks {', '.join(lacking)}: fetch it again")


def config_to_v2m(config: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Any]:
    """config.json as `MusicConfig.to_dict`. Dropout, which says how to train and not what the weights are, becomes 0.

    Args:
        config: Of a composite or a decoder, as `json` reads it.
        own: The weights, without the encoders'.

    Raises:
        DependencyError: Another family, a shape that v2m does not have, or other sizes than the weights'.
    """
    check_config(config)
    kind = config["model_type"]
    decoder = config["decoder"] if kind in MODEL_TYPES else config
    strange = [
        f"{name} {decoder[name]!r}" for name, value in _REQUIRED_SETTINGS.items() if decoder.get(name, value) != value
    ]
    if strange:
        raise DependencyError(f"this MusicGen is none that v2m can run: {'; '.join(strange)}")
    lm = {
        "dim": decoder.get("hidden_size", 1024),
        "num_layers": decoder.get("num_hidden_layers", 24),
        "num_heads": decoder.get("num_attention_heads", 16),
        "ffn_dim": decoder.get("ffn_dim", 4096),
        "num_codebooks": decoder.get("num_codebooks", 4),
        "codebook_size": decoder.get("vocab_size", 2048),
        "channels": decoder.get("audio_channels", 1),
        "delays": None,
        "cross_attention": (MODEL_TYPES | DECODER_TYPES)[kind],
        "dropout": 0.0,
    }
    own = {name.removeprefix("decoder."): value for name, value in own.items()}
    check_sizes_match(lm, _sizes_of_weights(own))
    projections = {"text_dim": "enc_to_dec_proj.weight", "num_chroma": "audio_enc_to_dec_proj.weight"}
    widths = {here: own[name].shape[1] if name in own else None for here, name in projections.items()}
    wanted = ({"text_dim"} | ({"num_chroma"} if not lm["cross_attention"] else set())) if kind in MODEL_TYPES else set()
    lacking = [projections[here] for here in sorted(wanted) if widths[here] is None]
    if lacking:
        raise DependencyError(f"the weights hold no {truncate_list(lacking)}: v2m has no MusicGen without")
    return {"lm": lm, **widths, "conditioner": None, "segment_duration": SEGMENT_DURATION}


def config_from_v2m(
    values: Mapping[str, Any],
    *,
    text_encoder: Mapping[str, Any] | None = None,
    audio_encoder: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """config.json of the composite, or of the decoder alone where its encoders are not given.

    Args:
        plain: `MusicConfig.to_dict`.
        text_encoder: config.json of its T5.
        audio_encoder: Of its EnCodec.

    Raises:
        UsageError: transformers has no such model.
    """
    lm = values["lm"]
    problems = []
    if values.get("conditioner") is not None:
        problems.append("it has no model that sees")
    if lm["delays"] is not None and list(lm["delays"]) != [k // lm["channels"] for k in range(lm["num_codebooks"])]:
        problems.append(f"its delays are not {list(lm['delays'])}")
    if lm["cross_attention"] and values.get("num_chroma") is not None:
        problems.append("its layers do not attend to melodies")
    if lm["dim"] in (values.get("text_dim"), values.get("num_chroma")):
        problems.append(f"it has no projection of {lm['dim']} wide tokens, where it is as wide")
    kind = next(name for name, crossing in MODEL_TYPES.items() if crossing == lm["cross_attention"])
    if problems:
        raise UsageError(f"transformers' MusicGen cannot be this model: {'; '.join(problems)}")
    decoder = {
        "model_type": f"{kind}_decoder",
        "vocab_size": lm["codebook_size"],
        "hidden_size": lm["dim"],
        "num_hidden_layers": lm["num_layers"],
        "num_attention_heads": lm["num_heads"],
        "ffn_dim": 4 * lm["dim"] if lm["ffn_dim"] is None else lm["ffn_dim"],
        "num_codebooks": lm["num_codebooks"],
        "audio_channels": lm["channels"],
        "dropout": lm["dropout"],
        "attention_dropout": lm["dropout"],
        "activation_dropout": lm["dropout"],
        "pad_token_id": lm["codebook_size"],
        "bos_token_id": lm["codebook_size"],
        **_REQUIRED_SETTINGS,
    }
    if text_encoder is None or audio_encoder is None:
        name = "MusicgenForCausalLM" if lm["cross_attention"] else "MusicgenMelodyForCausalLM"
        return {"architectures": [name]} | decoder
    name = "MusicgenForConditionalGeneration" if lm["cross_attention"] else "MusicgenMelodyForConditionalGeneration"
    melody = (
        {} if values.get("num_chroma") is None else {"num_chroma": values["num_chroma"], "chroma_length": CHROMA_FRAMES}
    )
    return {
        "architectures": [name],
        "model_type": kind,
        "is_encoder_decoder": True,
        "text_encoder": dict(text_encoder),
        "audio_encoder": dict(audio_encoder),
        "decoder": decoder,
        **melody,
    }


def _sizes_of_weights(own: Mapping[str, Tensor]) -> dict[str, object]:
    table = own.get("model.decoder.embed_tokens.0.weight")
    if table is None:
        raise DependencyError(
            f"these are not the weights of {MODEL_NAME}: model.decoder.embed_tokens.0.weight is missing"
        )
    found: dict[str, object] = {"dim": table.shape[1], "codebook_size": table.shape[0] - 1}
    found["num_codebooks"] = count_indices(own, "model.decoder.embed_tokens.N.weight")
    found["num_layers"] = count_indices(own, "model.decoder.layers.N.self_attn_layer_norm.weight")
    found["cross_attention"] = "model.decoder.layers.0.encoder_attn_layer_norm.weight" in own
    if (first := own.get("model.decoder.layers.0.fc1.weight")) is not None:
        found["ffn_dim"] = first.shape[0]
    return found
