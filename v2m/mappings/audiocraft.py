"""MusicGen between audiocraft's layout (`state_dict.bin`: `best_state`, settings `xp.cfg`) and v2m's.

Read from audiocraft 1.3. Its T5 is fetched by name and is not in the checkpoint; nor are Demucs and the chroma filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
)

MODEL_NAME = "audiocraft's MusicGen"
CHROMA_WINDOW_KEY = "condition_provider.conditioners.self_wav.chroma.spec.window"
CHROMA_RADIX2_EXP = 14  # the chroma's Fourier transform has 2 to this many samples
_CONDITIONERS = {"description": "text", "self_wav": "chroma"}
_LAYER_KEYS = {
    **{f"self_attn.{mha}in_proj_weight": "self_attention.query_key_value.weight" for mha in ("mha.", "")},
    **{f"self_attn.{mha}out_proj.weight": "self_attention.out.weight" for mha in ("mha.", "")},
    **{f"cross_attention.{mha}in_proj_weight": "cross_attention.query_key_value.weight" for mha in ("mha.", "")},
    **{f"cross_attention.{mha}out_proj.weight": "cross_attention.out.weight" for mha in ("mha.", "")},
    "linear1.weight": "expand.weight",
    "linear2.weight": "contract.weight",
    **{f"norm1.{leaf}": f"norm_self.{leaf}" for leaf in BOTH},
    **{f"norm_cross.{leaf}": f"norm_cross.{leaf}" for leaf in BOTH},
    **{f"norm2.{leaf}": f"norm_feedforward.{leaf}" for leaf in BOTH},
}
KEY_MAP: dict[str, str | None] = {
    "emb.N.weight": "lm.embeddings.N.weight",
    **{f"transformer.layers.N.{old}": f"lm.layers.N.{new}" for old, new in _LAYER_KEYS.items()},
    **{f"out_norm.{leaf}": f"lm.norm.{leaf}" for leaf in BOTH},
    "linears.N.weight": "lm.heads.N.weight",
    **{
        f"condition_provider.conditioners.{old}.output_proj.{leaf}": f"{new}.{leaf}"
        for old, new in _CONDITIONERS.items()
        for leaf in BOTH
    },
    CHROMA_WINDOW_KEY: None,  # a Hann window, recreated
}
_CROSS_FUSED, _CROSS_SPLIT = ".cross_attention.query_key_value.weight", (".query.weight", ".key_value.weight")
_CROSS_SHARES = {f".cross_attention{end}": share for end, share in zip(_CROSS_SPLIT, (1, 2), strict=True)}

# settings of the transformer: the only supported value, and audiocraft's default
_REQUIRED_SETTINGS: dict[str, tuple[Any, Any]] = {
    "norm_first": (True, False),
    "norm": ("layer_norm", "layer_norm"),
    "activation": ("gelu", "relu"),
    "causal": (True, False),
    **dict.fromkeys(("bias_ff", "bias_attn", "bias_proj"), (False, True)),
    "positional_embedding": ("sin", "sin"),
    "positional_scale": (1, 1),
    "max_period": (10_000, 10_000),
    **dict.fromkeys(("layer_scale", "past_context"), (None, None)),
    **dict.fromkeys(("qk_layer_norm", "qk_layer_norm_cross"), (False, False)),
    "kv_repeat": (1, 1),
}


def to_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert `best_state` to `MusicModel`'s state. Raises DependencyError for an unknown name."""
    return split_projections(rename_keys(state, KEY_MAP, MODEL_NAME), _CROSS_FUSED, _CROSS_SHARES)


def from_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state of `MusicModel` to `best_state`, with the chroma window that `to_v2m` drops."""
    fused = merge_projections(state, tuple(_CROSS_SHARES), _CROSS_FUSED)
    out = rename_keys(fused, invert(KEY_MAP), "a MusicGen that audiocraft can run")
    if "chroma.weight" in state:
        out[CHROMA_WINDOW_KEY] = torch.hann_window(2**CHROMA_RADIX2_EXP)
    return out


def config_to_v2m(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Convert `xp.cfg`, parsed, to `MusicConfig.to_dict`.

    Raises DependencyError for another family, a shape that v2m does not have, or other sizes than the weights'.
    """
    kind = cfg.get("lm_model")
    if kind != "transformer_lm":
        hint = "MAGNeT: give it to the recipe magnet" if kind == "transformer_lm_magnet" else "a codec?"
        raise DependencyError(f"lm_model {kind!r} is not MusicGen's ({hint})")
    sizes, fuser = _section(cfg, "transformer_lm"), _section(cfg, "fuser")
    if unsupported := _unsupported_settings(cfg, sizes, fuser):
        raise DependencyError(f"this model of audiocraft's is none that v2m can run: {'; '.join(unsupported)}")
    channels = 2 if (cfg.get("interleave_stereo_codebooks") or {}).get("use") else 1
    required = "n_q", "card", "dim", "num_heads", "num_layers"
    if missing := [name for name in required if not isinstance(sizes.get(name), int)]:
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
    names = {"embedding": "emb.N.weight", "norm": "transformer.layers.N.norm1.weight"}
    names |= {"cross": "transformer.layers.N.norm_cross.weight", "feedforward": "transformer.layers.N.linear1.weight"}
    check_sizes_match(lm, language_model_sizes(state, MODEL_NAME, **names))
    dims = {
        field: state[name].shape[1] if name in state else None
        for field, old in (("text_dim", "description"), ("num_chroma", "self_wav"))
        for name in [f"condition_provider.conditioners.{old}.output_proj.weight"]
    }
    segment_duration = float((cfg.get("dataset") or {}).get("segment_duration", 30))
    return {"lm": lm, **dims, "conditioner": None, "segment_duration": segment_duration}


def config_from_v2m(
    config: Mapping[str, Any], *, sample_rate: int = 32000, text_encoder: str = "t5-base"
) -> dict[str, Any]:
    """Convert `MusicConfig.to_dict` to the settings with which audiocraft's own loader makes the model.

    `sample_rate` is the codec's, in Hz; `text_encoder` is the T5 that is fetched, as audiocraft calls it. Raises
    UsageError where audiocraft has no such model.
    """
    lm = config["lm"]
    if config.get("conditioner") is not None:
        raise UsageError("audiocraft has no visual conditioner: write this model in another layout")
    stereo, num_codebooks = lm["channels"] == 2, lm["num_codebooks"]
    ffn_dim = 4 * lm["dim"] if lm["ffn_dim"] is None else lm["ffn_dim"]
    conditioners: dict[str, Any] = {}
    if config["text_dim"] is not None:
        t5 = {"name": text_encoder, "finetune": False, "word_dropout": 0.3, "normalize_text": False}
        conditioners["description"] = {"model": "t5", "t5": t5}
    if config["num_chroma"] is not None:
        chroma = {"sample_rate": sample_rate, "n_chroma": config["num_chroma"], "radix2_exp": CHROMA_RADIX2_EXP}
        chroma |= {"argmax": True, "match_len_on_eval": True}
        conditioners["self_wav"] = {"model": "chroma_stem", "chroma_stem": chroma}
    cross = list(conditioners) if lm["cross_attention"] else []
    delays = list(lm["delays"] or (k // lm["channels"] for k in range(num_codebooks)))
    pattern = {"modeling": "delay", "delay": {"delays": delays, "flatten_first": 0, "empty_initial": 0}}
    return {
        "solver": "musicgen",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": sample_rate,
        "channels": lm["channels"],
        "compression_model_n_q": None,
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "lm_model": "transformer_lm",
        "codebooks_pattern": pattern,
        "transformer_lm": {
            "n_q": num_codebooks,
            "card": lm["codebook_size"],
            "dim": lm["dim"],
            "num_heads": lm["num_heads"],
            "num_layers": lm["num_layers"],
            "hidden_scale": ffn_dim // lm["dim"] if ffn_dim % lm["dim"] == 0 else ffn_dim / lm["dim"],
            "dropout": lm["dropout"],
            "memory_efficient": True,
            "cross_attention": bool(lm["cross_attention"]),
            **{name: value for name, (value, _) in _REQUIRED_SETTINGS.items()},
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
    """Return audiocraft's name of the text encoder, as t5-base; None without one."""
    return _t5_settings(cfg).get("name")


def _t5_settings(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    description = (cfg.get("conditioners") or {}).get("description") or {}
    return description.get("t5") or {}


def _section(cfg: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = cfg.get(name)
    if not isinstance(section, Mapping):
        raise DependencyError(f"xp.cfg has no section {name}: not the settings of {MODEL_NAME}")
    return section


def _unsupported_settings(cfg: Mapping[str, Any], sizes: Mapping[str, Any], fuser: Mapping[str, Any]) -> list[str]:
    """Return the settings that v2m's model does not have."""
    problems = [
        f"transformer_lm.{name} {sizes.get(name, default)!r}"
        for name, (only, default) in _REQUIRED_SETTINGS.items()
        if sizes.get(name, default) != only
    ]
    pattern = cfg.get("codebooks_pattern") or {}
    modeling, delay = pattern.get("modeling") or sizes.get("q_modeling"), pattern.get("delay") or {}
    problems += [f"codebooks_pattern.modeling {modeling!r}"] if modeling != "delay" else []
    problems += [f"codebooks_pattern.delay.{key}" for key in ("flatten_first", "empty_initial") if delay.get(key)]
    stereo = cfg.get("interleave_stereo_codebooks") or {}
    problems += ["interleave_stereo_codebooks.per_timestep"] if stereo.get("use") and stereo.get("per_timestep") else []
    problems += [f"fuser.{key} {list(fuser[key])}" for key in ("sum", "input_interpolate") if fuser.get(key)]
    problems += ["fuser.cross_attention_pos_emb"] if fuser.get("cross_attention_pos_emb") else []
    problems += ["both fuser.cross and fuser.prepend"] if fuser.get("cross") and fuser.get("prepend") else []
    if _t5_settings(cfg).get("finetune"):
        problems.append("conditioners.description.t5.finetune True: its T5 was trained along, v2m reads published ones")
    models = {"description": "t5", "self_wav": "chroma_stem"}
    for name, settings in (cfg.get("conditioners") or {}).items():
        kind = (settings or {}).get("model")
        if name != "args" and models.get(name) != kind:
            problems.append(f"conditioners.{name} ({kind})")
    return problems


def _custom_delays(cfg: Mapping[str, Any], num_codebooks: int, channels: int) -> list[int] | None:
    """Return the delays of the codebooks, or None where they are v2m's defaults."""
    delays = ((cfg.get("codebooks_pattern") or {}).get("delay") or {}).get("delays")
    delays = list(range(num_codebooks)) if delays is None else list(delays)
    return None if delays == [k // channels for k in range(num_codebooks)] else delays
