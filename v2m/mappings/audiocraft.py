"""MusicGen between audiocraft's layout (`state_dict.bin`: `best_state`, settings `xp.cfg`) and v2m's.

Read from audiocraft 1.3, MusicGen-Style from its main branch after it. Its T5 and MERT are fetched by name and are not
in the checkpoint; nor are Demucs and the chroma filters.
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
    count_indices,
    invert,
    language_model_sizes,
    merge_projections,
    rename_keys,
    split_projections,
)

MODEL_NAME = "audiocraft's MusicGen"
CHROMA_WINDOW_KEY = "condition_provider.conditioners.self_wav.chroma.spec.window"
CHROMA_RADIX2_EXP = 14  # the chroma's Fourier transform has 2 to this many samples
PUBLISHED = "//pretrained/"  # before the name of a model on the hub, in audiocraft's settings
MERT_NAME = "m-a-p/MERT-v1-95M"  # the one that audiocraft loads
STYLE_CODEC = f"{PUBLISHED}facebook/encodec_32khz"  # of a style conditioner that reads EnCodec's codes
_CONDITIONERS = {"description": "text", "self_wav": "chroma"}
_CONDITIONER_MODELS = {"description": ("t5",), "self_wav": ("chroma_stem", "style")}
_OTHER_CONDITIONERS = {  # by the name in the settings: what v2m lacks for it
    "clap": "clap: CLAP embeddings in the place of T5's text",
    "lut": "lut: words looked up in a table",
    "drum_latents": "drum_latents: JASCO's drums",
    "chords_emb": "chords_emb: JASCO's chords",
    "melody": "melody: JASCO's melody",
}
_OTHER_MODELS = {  # by lm_model
    "transformer_lm_magnet": "MAGNeT: give it to the recipe magnet",
    "flow_matching": "JASCO, flow matching led by chords, drums and melody, which v2m has no model for",
}
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
_STYLE_PREFIX = "condition_provider.conditioners.self_wav."
_CODEBOOK_KEYS = {"embed": "entries", "embed_avg": "sums", "cluster_size": "counts", "inited": "initialized"}
_STYLE_KEYS = {
    **{f"embed.{leaf}": f"embed.{leaf}" for leaf in BOTH},  # of MERT's features
    "embed.N.weight": "embed.N.weight",  # of EnCodec's codes
    **{f"transformer.layers.N.{old}": f"layers.N.{new}" for old, new in _LAYER_KEYS.items() if "cross" not in old},
    **{f"batch_norm.{leaf}": f"batch_norm.{leaf}" for leaf in ("running_mean", "running_var", "num_batches_tracked")},
    **{f"rvq.vq.layers.N._codebook.{old}": f"quantizers.N.{new}" for old, new in _CODEBOOK_KEYS.items()},
    **{f"output_proj.{leaf}": f"output.{leaf}" for leaf in BOTH},
}
STYLE_KEY_MAP: dict[str, str | None] = {
    **{old: new for old, new in KEY_MAP.items() if not old.startswith(_STYLE_PREFIX)},
    **{f"{_STYLE_PREFIX}{old}": f"style.{new}" for old, new in _STYLE_KEYS.items()},
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
    has_style = any(name.startswith(f"{_STYLE_PREFIX}embed.") for name in state)
    renamed = rename_keys(state, STYLE_KEY_MAP if has_style else KEY_MAP, MODEL_NAME)
    return split_projections(renamed, _CROSS_FUSED, _CROSS_SHARES)


def from_v2m(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state of `MusicModel` to `best_state`, with the chroma window that `to_v2m` drops."""
    fused = merge_projections(state, tuple(_CROSS_SHARES), _CROSS_FUSED)
    has_style = any(name.startswith("style.") for name in state)
    out = rename_keys(fused, invert(STYLE_KEY_MAP if has_style else KEY_MAP), "a MusicGen that audiocraft can run")
    if "chroma.weight" in state:
        out[CHROMA_WINDOW_KEY] = torch.hann_window(2**CHROMA_RADIX2_EXP)
    return out


def config_to_v2m(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Convert `xp.cfg`, parsed, to `MusicConfig.to_dict`.

    Raises DependencyError for another family, a shape that v2m does not have, or other sizes than the weights'.
    """
    kind = cfg.get("lm_model")
    if kind != "transformer_lm":
        hint = _OTHER_MODELS.get(str(kind), "a codec?")
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
    dims: dict[str, Any] = {
        field: state[name].shape[1] if name in state else None
        for field, old in (("text_dim", "description"), ("num_chroma", "self_wav"))
        for name in [f"condition_provider.conditioners.{old}.output_proj.weight"]
    }
    if (style := style_settings(cfg)) is not None:
        dims |= {"num_chroma": None, "style": _style_to_v2m(style, state)}
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
    if (style := config.get("style")) is not None:
        conditioners["self_wav"] = {"model": "style", "style": _style_from_v2m(style, sample_rate, num_codebooks)}
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


def style_settings(cfg: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the settings of the style conditioner; None without one."""
    self_wav = (cfg.get("conditioners") or {}).get("self_wav") or {}
    return (self_wav.get("style") or {}) if self_wav.get("model") == "style" else None


def style_encoder_name(cfg: Mapping[str, Any]) -> str | None:
    """Return the hub's name of the style encoder; None without a style conditioner."""
    style = style_settings(cfg)
    if style is None:
        return None
    return MERT_NAME if style.get("model_name") == "mert" else _style_codec(style).removeprefix(PUBLISHED)


def _style_codec(style: Mapping[str, Any]) -> str:
    return str(style.get("encodec_checkpoint", STYLE_CODEC))


def _style_to_v2m(style: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Convert the settings of a style conditioner to `StyleConfig`'s.

    Missing ones are audiocraft's defaults.
    """
    encoder = style["model_name"]
    table = state.get(f"{_STYLE_PREFIX}embed.{'weight' if encoder == 'mert' else '0.weight'}")
    if table is None:
        raise DependencyError(f"settings and weights are not of the same model: no style embedding of {encoder}")
    num_quantizers = style.get("n_q_out", 6)
    stored = count_indices(state, f"{_STYLE_PREFIX}rvq.vq.layers.N._codebook.embed")
    check_sizes_match({"n_q_out": num_quantizers}, {"n_q_out": stored})
    return {
        "encoder": encoder,
        "scale": style.get("transformer_scale", "default"),
        "feature_dim": table.shape[1] if encoder == "mert" else table.shape[0],
        "feature_codebooks": style.get("encodec_n_q", 4),
        "downsampling": style.get("ds_factor", 15),
        "num_quantizers": num_quantizers,
        "eval_quantizers": style.get("eval_q", 3),
        "codebook_size": style.get("bins", 1024),
        "batch_norm": style.get("batch_norm", True),
    }


def _style_from_v2m(style: Mapping[str, Any], sample_rate: int, num_codebooks: int) -> dict[str, Any]:
    """Convert `StyleConfig`'s settings to audiocraft's; those of training alone are as published."""
    return {
        "model_name": style["encoder"],
        "transformer_scale": style["scale"],
        "sample_rate": sample_rate,
        "encodec_checkpoint": STYLE_CODEC,
        "encodec_n_q": style["feature_codebooks"],
        "length": 3.0,
        "ds_factor": style["downsampling"],
        "n_q_out": style["num_quantizers"],
        "eval_q": style["eval_quantizers"],
        "q_dropout": True,
        "bins": style["codebook_size"],
        "varying_lengths": [1.5, 4.5],
        "batch_norm": style["batch_norm"],
        "compute_mask": True,
        "num_codebooks_lm": num_codebooks,
        "ds_rate_compression": 640,
        "use_middle_of_segment": False,
        "rvq_threshold_ema_dead_code": 0.1,
    }


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
    for name, settings in (cfg.get("conditioners") or {}).items():
        kind = (settings or {}).get("model")
        if name != "args" and kind not in _CONDITIONER_MODELS.get(name, ()):
            what = _OTHER_CONDITIONERS.get(str(kind), str(kind))
            problems.append(f"conditioners.{name} ({what})")
    return problems + _unsupported_style(style_settings(cfg), fuser)


def _unsupported_style(style: Mapping[str, Any] | None, fuser: Mapping[str, Any]) -> list[str]:
    """Return the settings of a style conditioner that v2m does not have."""
    if style is None:
        return []
    problems = ["fuser.cross with a style, which v2m reads as a prefix"] if fuser.get("cross") else []
    if (name := style.get("model_name")) not in ("mert", "encodec"):
        problems.append(f"conditioners.self_wav.style.model_name {name!r}")
    if name == "encodec" and not _style_codec(style).startswith(PUBLISHED):
        problems.append(f"conditioners.self_wav.style.encodec_checkpoint {_style_codec(style)!r}, which is on no hub")
    return problems


def _custom_delays(cfg: Mapping[str, Any], num_codebooks: int, channels: int) -> list[int] | None:
    """Return the delays of the codebooks, or None where they are v2m's defaults."""
    delays = ((cfg.get("codebooks_pattern") or {}).get("delay") or {}).get("delays")
    delays = list(range(num_codebooks)) if delays is None else list(delays)
    return None if delays == [k // channels for k in range(num_codebooks)] else delays
