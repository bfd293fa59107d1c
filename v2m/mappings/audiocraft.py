"""MusicGen between audiocraft's layout (`state_dict.bin`: `best_state` and the settings `xp.cfg`) and v2m's.

Read from audiocraft 1.3. Its T5 is fetched by name and not in the checkpoint; Demucs and what makes chroma neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.state_dict_map import (
    check_sizes_match,
    count_indices,
    invert,
    merge_projections,
    rename_keys,
    split_projections,
)

MODEL_NAME = "audiocraft's MusicGen"
CHROMA_WINDOW_KEY = "condition_provider.conditioners.self_wav.chroma.spec.window"
CHROMA_RADIX2_EXP = 14  # the chroma's Fourier transform has 2 to this many samples
_BOTH = ("weight", "bias")
_CONDITIONERS = {"description": "text", "self_wav": "chroma"}
_LAYER_KEYS = {
    **{f"self_attn.{mha}in_proj_weight": "self_attention.query_key_value.weight" for mha in ("mha.", "")},
    **{f"self_attn.{mha}out_proj.weight": "self_attention.out.weight" for mha in ("mha.", "")},
    **{f"cross_attention.{mha}in_proj_weight": "cross_attention.query_key_value.weight" for mha in ("mha.", "")},
    **{f"cross_attention.{mha}out_proj.weight": "cross_attention.out.weight" for mha in ("mha.", "")},
    "linear1.weight": "expand.weight",
    "linear2.weight": "contract.weight",
    **{f"norm1.{each}": f"norm_self.{each}" for each in _BOTH},
    **{f"norm_cross.{each}": f"norm_cross.{each}" for each in _BOTH},
    **{f"norm2.{each}": f"norm_feedforward.{each}" for each in _BOTH},
}
KEY_MAP: dict[str, str | None] = {
    "emb.N.weight": "lm.embeddings.N.weight",
    **{f"transformer.layers.N.{there}": f"lm.layers.N.{here}" for there, here in _LAYER_KEYS.items()},
    **{f"out_norm.{each}": f"lm.norm.{each}" for each in _BOTH},
    "linears.N.weight": "lm.heads.N.weight",
    **{
        f"condition_provider.conditioners.{there}.output_proj.{each}": f"{here}.{each}"
        for there, here in _CONDITIONERS.items()
        for each in _BOTH
    },
    CHROMA_WINDOW_KEY: None,  # a Hann window, recreated
}
_CROSS_FUSED, _CROSS_SPLIT = ".cross_attention.query_key_value.weight", (".query.weight", ".key_value.weight")
_CROSS_SHARES = {f".cross_attention{end}": share for end, share in zip(_CROSS_SPLIT, (1, 2), strict=True)}

# settings of the transformer that make this model: what they must be, and what audiocraft takes where they are not said
_REQUIRED_SETTINGS: dict[str, tuple[Any, Any]] = {
    "norm_first": (True, False),
    "norm": ("layer_norm", "layer_norm"),
    "activation": ("gelu", "relu"),
    "causal": (True, False),
    "bias_ff": (False, True),
    "bias_attn": (False, True),
    "bias_proj": (False, True),
    "positional_embedding": ("sin", "sin"),
    "positional_scale": (1, 1),
    "max_period": (10_000, 10_000),
    "layer_scale": (None, None),
    "past_context": (None, None),
    "qk_layer_norm": (False, False),
    "qk_layer_norm_cross": (False, False),
    "kv_repeat": (1, 1),
}


def to_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`best_state` → the state of `v2m.models.music_model.MusicModel`.

    Raises:
        DependencyError: A name is not one of the model's; lists the first of them.
    """
    return split_projections(rename_keys(state, KEY_MAP, MODEL_NAME), _CROSS_FUSED, _CROSS_SHARES)


def from_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_v2m`; what it drops is recreated."""
    out = rename_keys(
        merge_projections(state, tuple(_CROSS_SHARES), _CROSS_FUSED),
        invert(KEY_MAP),
        "a MusicGen that audiocraft can run",
    )
    if "chroma.weight" in state:
        out[CHROMA_WINDOW_KEY] = torch.hann_window(2**CHROMA_RADIX2_EXP)
    return out


def config_to_v2m(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`xp.cfg`, parsed, as `MusicConfig.to_dict`.

    Raises:
        DependencyError: It describes another family, a shape that v2m does not have, or other sizes than the weights'.
    """
    kind = cfg.get("lm_model")
    if kind != "transformer_lm":
        known = {"transformer_lm_magnet": "MAGNeT, which does not write from left to right"}
        raise DependencyError(f"lm_model {kind!r} is not MusicGen's ({known.get(str(kind), 'a codec?')})")
    sizes, fuser = _section(cfg, "transformer_lm"), _section(cfg, "fuser")
    _check_supported(_unsupported_settings(cfg, sizes, fuser))
    channels = 2 if (cfg.get("interleave_stereo_codebooks") or {}).get("use") else 1
    missing = [
        name for name in ("n_q", "card", "dim", "num_heads", "num_layers") if not isinstance(sizes.get(name), int)
    ]
    if missing:
        raise DependencyError(f"xp.cfg says no transformer_lm.{', transformer_lm.'.join(missing)}")
    lm = {
        "dim": sizes["dim"],
        "num_layers": sizes["num_layers"],
        "num_heads": sizes["num_heads"],
        "ffn_dim": int(sizes.get("hidden_scale", 4) * sizes["dim"]),
        "num_codebooks": sizes["n_q"],
        "codebook_size": sizes["card"],
        "channels": channels,
        "delays": _custom_delays(cfg, sizes["n_q"], channels),
        "cross_attention": bool(fuser.get("cross") or sizes.get("cross_attention")),
        "dropout": float(sizes.get("dropout", 0.1)),
    }
    if "emb.0.weight" not in state:
        raise DependencyError(f"these are not the weights of {MODEL_NAME}: emb.0.weight is missing")
    check_sizes_match(lm, _sizes_of_weights(state))
    widths = {
        here: state[name].shape[1]
        for there, here in _CONDITIONERS.items()
        if (name := f"condition_provider.conditioners.{there}.output_proj.weight") in state
    }
    return {
        "lm": lm,
        "text_dim": widths.get("text"),
        "num_chroma": widths.get("chroma"),
        "conditioner": None,
        "segment_duration": float((cfg.get("dataset") or {}).get("segment_duration", 30)),
    }


def config_from_v2m(
    config: Mapping[str, Any], *, sample_rate: int = 32000, text_encoder: str = "t5-base"
) -> dict[str, Any]:
    """Settings with which audiocraft's own loader makes the model of `MusicConfig.to_dict`.

    Args:
        plain: What the model is.
        sample_rate: Of its codec, in Hz.
        text_encoder: The T5 that is fetched for it; audiocraft knows a few by name.

    Raises:
        UsageError: audiocraft has no such model.
    """
    lm = config["lm"]
    if config.get("conditioner") is not None:
        raise UsageError("audiocraft has no model that sees: write it in another layout")
    stereo, count_ = lm["channels"] == 2, lm["num_codebooks"]
    inner = 4 * lm["dim"] if lm["ffn_dim"] is None else lm["ffn_dim"]
    conditioners: dict[str, Any] = {}
    if config["text_dim"] is not None:
        t5 = {"name": text_encoder, "finetune": False, "word_dropout": 0.3, "normalize_text": False}
        conditioners["description"] = {"model": "t5", "t5": t5}
    if config["num_chroma"] is not None:
        chroma = {
            "sample_rate": sample_rate,
            "n_chroma": config["num_chroma"],
            "radix2_exp": CHROMA_RADIX2_EXP,
            "argmax": True,
        }
        conditioners["self_wav"] = {"model": "chroma_stem", "chroma_stem": chroma | {"match_len_on_eval": True}}
    cross = list(conditioners) if lm["cross_attention"] else []
    fixed = {name: value for name, (value, _) in _REQUIRED_SETTINGS.items()}
    return {
        "solver": "musicgen",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": sample_rate,
        "channels": lm["channels"],
        "compression_model_n_q": None,
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "lm_model": "transformer_lm",
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {
                "delays": list(lm["delays"] or (k // lm["channels"] for k in range(count_))),
                "flatten_first": 0,
                "empty_initial": 0,
            },
        },
        "transformer_lm": {
            "n_q": count_,
            "card": lm["codebook_size"],
            "dim": lm["dim"],
            "num_heads": lm["num_heads"],
            "num_layers": lm["num_layers"],
            "hidden_scale": inner // lm["dim"] if inner % lm["dim"] == 0 else inner / lm["dim"],
            "dropout": lm["dropout"],
            "memory_efficient": True,
            "cross_attention": bool(lm["cross_attention"]),
            **fixed,
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {"args": {"active_on_eval": False}, "text": {}, "wav": {}},
        "conditioners": conditioners,
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": [] if cross else sorted(conditioners, reverse=True),  # the melody first
            "cross": cross,
            "input_interpolate": [],
        },
        "dataset": {"segment_duration": config["segment_duration"]},
    }


def text_encoder_name(cfg: Mapping[str, Any]) -> str | None:
    """audiocraft's name of the T5 that reads for the model, as t5-base; None where it reads no text."""
    said = (cfg.get("conditioners") or {}).get("description") or {}
    return (said.get("t5") or {}).get("name")


def _section(cfg: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = cfg.get(name)
    if not isinstance(found, Mapping):
        raise DependencyError(f"xp.cfg has no section {name}: not the settings of {MODEL_NAME}")
    return found


def _unsupported_settings(cfg: Mapping[str, Any], sizes: Mapping[str, Any], fuser: Mapping[str, Any]) -> list[str]:
    """The settings that v2m's model does not have."""
    found = [
        f"transformer_lm.{name} {sizes.get(name, default)!r}"
        for name, (wanted, default) in _REQUIRED_SETTINGS.items()
        if sizes.get(name, default) != wanted
    ]
    pattern = cfg.get("codebooks_pattern") or {}
    modeling, delay = pattern.get("modeling") or sizes.get("q_modeling"), pattern.get("delay") or {}
    found += [f"codebooks_pattern.modeling {modeling!r}"] if modeling != "delay" else []
    found += [f"codebooks_pattern.delay.{key}" for key in ("flatten_first", "empty_initial") if delay.get(key)]
    found += ["interleave_stereo_codebooks.per_timestep"] if _per_timestep(cfg) else []
    found += [f"fuser.{key} {list(fuser[key])}" for key in ("sum", "input_interpolate") if fuser.get(key)]
    found += ["fuser.cross_attention_pos_emb"] if fuser.get("cross_attention_pos_emb") else []
    found += ["both fuser.cross and fuser.prepend"] if fuser.get("cross") and fuser.get("prepend") else []
    models = {"description": "t5", "self_wav": "chroma_stem"}
    for name, settings in (cfg.get("conditioners") or {}).items():
        kind = (settings or {}).get("model")
        if name != "args" and models.get(name) != kind:
            found.append(f"conditioners.{name} ({kind})")
    return found


def _per_timestep(cfg: Mapping[str, Any]) -> bool:
    stereo = cfg.get("interleave_stereo_codebooks") or {}
    return bool(stereo.get("use") and stereo.get("per_timestep"))


def _check_supported(strange: list[str]) -> None:
    if strange:
        raise DependencyError(f"this model of audiocraft's is none that v2m can run: {'; '.join(strange)}")


def _custom_delays(cfg: Mapping[str, Any], codebooks: int, channels: int) -> list[int] | None:
    """None where they are as ours by default."""
    delays = ((cfg.get("codebooks_pattern") or {}).get("delay") or {}).get("delays")
    found = list(range(codebooks)) if delays is None else list(delays)
    return None if found == [k // channels for k in range(codebooks)] else found


def _sizes_of_weights(state: Mapping[str, Tensor]) -> dict[str, object]:
    entries, width = state["emb.0.weight"].shape
    found: dict[str, object] = {
        "dim": width,
        "codebook_size": entries - 1,
        "num_codebooks": count_indices(state, "emb.N.weight"),
    }
    found["num_layers"] = count_indices(state, "transformer.layers.N.norm1.weight")
    found["cross_attention"] = "transformer.layers.0.norm_cross.weight" in state
    if (first := state.get("transformer.layers.0.linear1.weight")) is not None:
        found["ffn_dim"] = first.shape[0]
    return found
