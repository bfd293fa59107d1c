"""MusicGen between audiocraft's layout (`state_dict.bin`: `best_state` and the settings `xp.cfg`) and v2m's.

Read from audiocraft 1.3. Its T5 is fetched by name and not in the checkpoint; Demucs and what makes chroma neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.state_dict_map import contradictions, count, inverse, joined, parted, renamed

MODEL = "audiocraft's MusicGen"
WINDOW = "condition_provider.conditioners.self_wav.chroma.spec.window"
RADIX = 14  # the chroma's Fourier transform has 2 to this many samples
_BOTH = ("weight", "bias")
_CONDITIONERS = {"description": "text", "self_wav": "chroma"}
_LAYER = {
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
RENAMES: dict[str, str | None] = {
    "emb.N.weight": "lm.embeddings.N.weight",
    **{f"transformer.layers.N.{there}": f"lm.layers.N.{here}" for there, here in _LAYER.items()},
    **{f"out_norm.{each}": f"lm.norm.{each}" for each in _BOTH},
    "linears.N.weight": "lm.heads.N.weight",
    **{
        f"condition_provider.conditioners.{there}.output_proj.{each}": f"{here}.{each}"
        for there, here in _CONDITIONERS.items()
        for each in _BOTH
    },
    WINDOW: None,  # a Hann window, made anew
}
_WHOLE, _PARTS = ".cross_attention.query_key_value.weight", (".query.weight", ".key_value.weight")
_SHARES = {f".cross_attention{end}": share for end, share in zip(_PARTS, (1, 2), strict=True)}

# settings of the transformer that make this model: what they must be, and what audiocraft takes where they are not said
_FIXED: dict[str, tuple[Any, Any]] = {
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
        MissingError: A name is not one of the model's; the first of them are told.
    """
    return parted(renamed(state, RENAMES, MODEL), _WHOLE, _SHARES)


def from_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_v2m`; what it drops is made anew."""
    out = renamed(joined(state, tuple(_SHARES), _WHOLE), inverse(RENAMES), "a MusicGen that audiocraft can run")
    if "chroma.weight" in state:
        out[WINDOW] = torch.hann_window(2**RADIX)
    return out


def config_to_v2m(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`xp.cfg`, parsed, as `MusicConfig.plain`.

    Raises:
        MissingError: It describes another family, a shape that v2m does not have, or other sizes than the weights'.
    """
    kind = cfg.get("lm_model")
    if kind != "transformer_lm":
        known = {"transformer_lm_magnet": "MAGNeT, which does not write from left to right"}
        raise DependencyError(f"lm_model {kind!r} is not MusicGen's ({known.get(str(kind), 'a codec?')})")
    sizes, fuser = _section(cfg, "transformer_lm"), _section(cfg, "fuser")
    _refuse(_strange(cfg, sizes, fuser))
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
        "delays": _delays(cfg, sizes["n_q"], channels),
        "cross_attention": bool(fuser.get("cross") or sizes.get("cross_attention")),
        "dropout": float(sizes.get("dropout", 0.1)),
    }
    if "emb.0.weight" not in state:
        raise DependencyError(f"these are not the weights of {MODEL}: emb.0.weight is missing")
    contradictions(lm, _sizes(state))
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
    plain: Mapping[str, Any], *, sample_rate: int = 32000, text_encoder: str = "t5-base"
) -> dict[str, Any]:
    """Settings with which audiocraft's own loader makes the model of `MusicConfig.plain`.

    Args:
        plain: What the model is.
        sample_rate: Of its codec, in Hz.
        text_encoder: The T5 that is fetched for it; audiocraft knows a few by name.

    Raises:
        UsageError: audiocraft has no such model.
    """
    lm = plain["lm"]
    if plain.get("conditioner") is not None:
        raise UsageError("audiocraft has no model that sees: write it in another layout")
    stereo, count_ = lm["channels"] == 2, lm["num_codebooks"]
    inner = 4 * lm["dim"] if lm["ffn_dim"] is None else lm["ffn_dim"]
    conditioners: dict[str, Any] = {}
    if plain["text_dim"] is not None:
        t5 = {"name": text_encoder, "finetune": False, "word_dropout": 0.3, "normalize_text": False}
        conditioners["description"] = {"model": "t5", "t5": t5}
    if plain["num_chroma"] is not None:
        chroma = {"sample_rate": sample_rate, "n_chroma": plain["num_chroma"], "radix2_exp": RADIX, "argmax": True}
        conditioners["self_wav"] = {"model": "chroma_stem", "chroma_stem": chroma | {"match_len_on_eval": True}}
    cross = list(conditioners) if lm["cross_attention"] else []
    fixed = {name: value for name, (value, _) in _FIXED.items()}
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
        "dataset": {"segment_duration": plain["segment_duration"]},
    }


def text_encoder(cfg: Mapping[str, Any]) -> str | None:
    """audiocraft's name of the T5 that reads for the model, as t5-base; None where it reads no text."""
    said = (cfg.get("conditioners") or {}).get("description") or {}
    return (said.get("t5") or {}).get("name")


def _section(cfg: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = cfg.get(name)
    if not isinstance(found, Mapping):
        raise DependencyError(f"xp.cfg has no section {name}: not the settings of {MODEL}")
    return found


def _strange(cfg: Mapping[str, Any], sizes: Mapping[str, Any], fuser: Mapping[str, Any]) -> list[str]:
    """The settings that v2m's model does not have."""
    found = [
        f"transformer_lm.{name} {sizes.get(name, default)!r}"
        for name, (wanted, default) in _FIXED.items()
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


def _refuse(strange: list[str]) -> None:
    if strange:
        raise DependencyError(f"this model of audiocraft's is none that v2m can run: {'; '.join(strange)}")


def _delays(cfg: Mapping[str, Any], codebooks: int, channels: int) -> list[int] | None:
    """None where they are as ours by default."""
    delays = ((cfg.get("codebooks_pattern") or {}).get("delay") or {}).get("delays")
    found = list(range(codebooks)) if delays is None else list(delays)
    return None if found == [k // channels for k in range(codebooks)] else found


def _sizes(state: Mapping[str, Tensor]) -> dict[str, object]:
    entries, width = state["emb.0.weight"].shape
    found: dict[str, object] = {
        "dim": width,
        "codebook_size": entries - 1,
        "num_codebooks": count(state, "emb.N.weight"),
    }
    found["num_layers"] = count(state, "transformer.layers.N.norm1.weight")
    found["cross_attention"] = "transformer.layers.0.norm_cross.weight" in state
    if (first := state.get("transformer.layers.0.linear1.weight")) is not None:
        found["ffn_dim"] = first.shape[0]
    return found
