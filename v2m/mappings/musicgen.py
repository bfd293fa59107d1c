"""MusicGen between transformers' layout and v2m's.

Transformers' composite model carries T5 and EnCodec, too; its decoder alone is `MusicgenForCausalLM`. The layers of
MusicGen attend to the condition; in MusicGen Melody the condition precedes the codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.state_dict_map import (
    BOTH,
    check_sizes_match,
    invert,
    language_model_sizes,
    merge_projections,
    rename_keys,
    split_projections,
    strip_prefix,
    truncate_list,
)

MODEL_NAME = "transformers' MusicGen"
MODEL_TYPES = {"musicgen": True, "musicgen_melody": False}  # model_type: whether it has cross-attention
DECODER_TYPES = {f"{kind}_decoder": cross_attention for kind, cross_attention in MODEL_TYPES.items()}
CHROMA_FRAMES = 235  # of a melody, in `SEGMENT_DURATION` seconds
SEGMENT_DURATION = 30.0
POSITIONS_KEY, NUM_POSITIONS = "model.decoder.embed_positions.weights", 2048
T5_EMBEDDING, T5_EMBEDDING_COPY = "shared.weight", "encoder.embed_tokens.weight"  # one matrix
_ATTENTIONS = {"self_attn": "self_attention", "encoder_attn": "cross_attention"}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_NORMS = {
    "self_attn_layer_norm": "norm_self",
    "encoder_attn_layer_norm": "norm_cross",
    "final_layer_norm": "norm_feedforward",
}
_LAYER_KEYS = {
    **{
        f"{old_attention}.{old}.weight": f"{attention}.{new}.weight"
        for old_attention, attention in _ATTENTIONS.items()
        for old, new in _PROJECTIONS.items()
    },
    "fc1.weight": "expand.weight",
    "fc2.weight": "contract.weight",
    **{f"{old}.{leaf}": f"{new}.{leaf}" for old, new in _NORMS.items() for leaf in BOTH},
}
KEY_MAP: dict[str, str | None] = {
    "model.decoder.embed_tokens.N.weight": "lm.embeddings.N.weight",
    POSITIONS_KEY: None,  # sines and cosines, recreated
    **{f"model.decoder.layers.N.{old}": f"lm.layers.N.{new}" for old, new in _LAYER_KEYS.items()},
    **{f"model.decoder.layer_norm.{leaf}": f"lm.norm.{leaf}" for leaf in BOTH},
    "lm_heads.N.weight": "lm.heads.N.weight",
    **{f"enc_to_dec_proj.{leaf}": f"text.{leaf}" for leaf in BOTH},
    **{f"audio_enc_to_dec_proj.{leaf}": f"chroma.{leaf}" for leaf in BOTH},
}
_SELF_SPLIT = tuple(f".self_attention.{projection}.weight" for projection in ("query", "key", "value"))
_CROSS_SPLIT = tuple(f".cross_attention.{projection}.weight" for projection in ("key", "value"))
_SELF_FUSED, _CROSS_FUSED = ".self_attention.query_key_value.weight", ".cross_attention.key_value.weight"
_REQUIRED_SETTINGS = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": False}


class SplitState(NamedTuple):
    """A composite's weights: the music model with its projections of conditions, and the frozen encoders."""

    music_model: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    audio_encoder: dict[str, Tensor]


def split_state(state: Mapping[str, Tensor]) -> SplitState:
    """Split a composite's weights, each under its own model's names; a decoder is all music model."""
    encoders = ("text_encoder.", "audio_encoder.")
    music_model = {name: value for name, value in state.items() if not name.startswith(encoders)}
    return SplitState(music_model, *(strip_prefix(prefix, state) for prefix in encoders))


def merge_state(
    music_model: Mapping[str, Tensor], text_encoder: Mapping[str, Tensor], audio_encoder: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Merge what `split_state` has split; T5's embedding is written once, as `save_pretrained` does."""
    text = {name: value for name, value in text_encoder.items() if name != T5_EMBEDDING_COPY}
    if T5_EMBEDDING_COPY in text_encoder:
        text.setdefault(T5_EMBEDDING, text_encoder[T5_EMBEDDING_COPY])
    text = {f"text_encoder.{name}": value for name, value in text.items()}
    return text | {f"audio_encoder.{name}": value for name, value in audio_encoder.items()} | dict(music_model)


def to_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a music model or a decoder to `MusicModel`'s state. Raises DependencyError for others."""
    state = rename_keys(_decoder_state(state), KEY_MAP, MODEL_NAME)
    return merge_projections(merge_projections(state, _SELF_SPLIT, _SELF_FUSED), _CROSS_SPLIT, _CROSS_FUSED)


def from_v2m(state: Mapping[str, Tensor], *, composite: bool = True) -> dict[str, Tensor]:
    """Convert the state of `MusicModel` to a composite's music model, or to a decoder without projections.

    With the table of positions, which transformers 4 reads and 5 computes.
    """
    state = split_projections(state, _SELF_FUSED, dict.fromkeys(_SELF_SPLIT, 1))
    state = split_projections(state, _CROSS_FUSED, dict.fromkeys(_CROSS_SPLIT, 1))
    out = rename_keys(state, invert(KEY_MAP), "a MusicGen that transformers can run")
    embedding = out["model.decoder.embed_tokens.0.weight"]
    out[POSITIONS_KEY] = _position_table(embedding.shape[1]).to(embedding)
    if not composite:
        return {name: value for name, value in out.items() if "_to_dec_proj." not in name}
    return {name if "_to_dec_proj." in name else f"decoder.{name}": value for name, value in out.items()}


def check_config(config: Mapping[str, Any]) -> None:
    """Raise DependencyError where config.json is of another family, or lacks a section."""
    kind = config.get("model_type")
    if kind not in (types := MODEL_TYPES | DECODER_TYPES):
        raise DependencyError(f"config.json says model_type {kind!r}, which is no MusicGen ({', '.join(types)})")
    sections = ("decoder", "text_encoder", "audio_encoder") if kind in MODEL_TYPES else ()
    if missing := [name for name in sections if not isinstance(config.get(name), Mapping)]:
        raise DependencyError(f"config.json of {kind} lacks {', '.join(missing)}: fetch it again")


def config_to_v2m(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Convert config.json to `MusicConfig.to_dict`; dropout, a matter of training alone, becomes 0.

    `config` is a composite's or a decoder's, `state` has the weights without the encoders'. Raises DependencyError for
    another family, a shape that v2m does not have, or other sizes than the weights'.
    """
    check_config(config)
    kind = config["model_type"]
    decoder = config["decoder"] if kind in MODEL_TYPES else config
    settings = _REQUIRED_SETTINGS.items()
    if unsupported := [f"{name} {decoder[name]!r}" for name, only in settings if decoder.get(name, only) != only]:
        raise DependencyError(f"this MusicGen is none that v2m can run: {'; '.join(unsupported)}")
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
    state, layer = _decoder_state(state), "model.decoder.layers.N"
    names = {"embedding": "model.decoder.embed_tokens.N.weight", "norm": f"{layer}.self_attn_layer_norm.weight"}
    names |= {"cross": f"{layer}.encoder_attn_layer_norm.weight", "feedforward": f"{layer}.fc1.weight"}
    check_sizes_match(lm, language_model_sizes(state, MODEL_NAME, **names))
    projections = {"text_dim": "enc_to_dec_proj.weight", "num_chroma": "audio_enc_to_dec_proj.weight"}
    dims = {field: state[name].shape[1] if name in state else None for field, name in projections.items()}
    required = {"musicgen": ("text_dim",), "musicgen_melody": ("num_chroma", "text_dim")}.get(kind, ())
    if missing := [projections[field] for field in required if dims[field] is None]:
        raise DependencyError(f"the weights hold no {truncate_list(missing)}: v2m has no MusicGen without")
    return {"lm": lm, **dims, "conditioner": None, "segment_duration": SEGMENT_DURATION}


def config_from_v2m(
    values: Mapping[str, Any],
    *,
    text_encoder: Mapping[str, Any] | None = None,
    audio_encoder: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Convert `MusicConfig.to_dict` to config.json of the composite, or of the decoder alone.

    The encoders are given by their config.json. Raises UsageError where transformers has no such model.
    """
    lm = values["lm"]
    problems = []
    if values.get("conditioner") is not None:
        problems.append("it has no visual conditioner")
    if lm["delays"] is not None and list(lm["delays"]) != [k // lm["channels"] for k in range(lm["num_codebooks"])]:
        problems.append(f"its delays are not {list(lm['delays'])}")
    if lm["cross_attention"] and values.get("num_chroma") is not None:
        problems.append("its layers do not attend to melodies")
    if lm["dim"] in (values.get("text_dim"), values.get("num_chroma")):
        problems.append(f"it has no projection of {lm['dim']} wide tokens, where it is as wide")
    kind, prefix = ("musicgen", "Musicgen") if lm["cross_attention"] else ("musicgen_melody", "MusicgenMelody")
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
        "max_position_embeddings": NUM_POSITIONS,
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), lm["dropout"]),
        **dict.fromkeys(("pad_token_id", "bos_token_id"), lm["codebook_size"]),
        **_REQUIRED_SETTINGS,
    }
    if text_encoder is None or audio_encoder is None:
        return {"architectures": [f"{prefix}ForCausalLM"]} | decoder
    num_chroma = values.get("num_chroma")
    melody = {} if num_chroma is None else {"num_chroma": num_chroma, "chroma_length": CHROMA_FRAMES}
    return {
        "architectures": [f"{prefix}ForConditionalGeneration"],
        "model_type": kind,
        "is_encoder_decoder": True,
        "text_encoder": dict(text_encoder),
        "audio_encoder": dict(audio_encoder),
        "decoder": decoder,
        **melody,
    }


def generation_config(special_token_id: int) -> dict[str, Any]:
    """Return generation_config.json as published."""
    codes = dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), special_token_id)
    return {**codes, "do_sample": True, "guidance_scale": 3.0, "max_length": 1500}


def preprocessor_config(channels: int, sample_rate: int, num_chroma: int | None) -> dict[str, Any]:
    """Return preprocessor_config.json: EnCodec's, or that of a melody's chroma."""
    shared = {"feature_size": channels, "padding_side": "left", "padding_value": 0.0, "return_attention_mask": True}
    shared |= {"sampling_rate": sample_rate, "chunk_length_s": None, "overlap": None}
    if num_chroma is None:
        return {**shared, "feature_extractor_type": "EncodecFeatureExtractor", "processor_class": "MusicgenProcessor"}
    chroma = {"num_chroma": num_chroma, "n_fft": 16384, "hop_length": 4096, "chunk_length": 30}
    kind = {"feature_extractor_type": "MusicgenMelodyFeatureExtractor", "processor_class": "MusicgenMelodyProcessor"}
    return {**shared, **chroma, "feature_size": num_chroma, **kind}


def _position_table(dim: int) -> Tensor:
    """Return transformers' sinusoidal positions (N, dim), by its order of operations."""
    frequencies = torch.exp(torch.arange(dim // 2).float() * -(math.log(10000) / max(dim // 2 - 1, 1)))
    angles = torch.arange(NUM_POSITIONS).float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _decoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under the names of the decoder alone."""
    return {name.removeprefix("decoder."): value for name, value in state.items()}
