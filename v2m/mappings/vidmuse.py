"""VidMuse between its authors' layout (audiocraft's with a visual conditioner) and v2m's; CLIP apart.

Not visible in the weights: in the published model the attentions over a frame have as many heads as the language model,
each of dimension 64; the attention to the whole video has 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.mappings import audiocraft
from v2m.mappings.state_dict_map import BOTH, count_indices, invert, normalize_index, rename_keys, truncate_list

MODEL_NAME, CLIP_NAME = "VidMuse", "VidMuse's CLIP"
CLIP_PREFIX = "visual_encoder_model."
NUM_FUSION_HEADS = 3
CLIP_HEAD_DIM = 64  # width of one head in every CLIP
VIDEO_FPS, NUM_GLOBAL_FRAMES = 2, 64
_SIDES = {"local": "near", "global": "whole"}
_FUSION_KEYS = {"query": "query", "key": "key", "value": "value", "final_linear": "mix", "norm1": "norm_attention"}
_FUSION_KEYS |= {"norm2": "norm"}
_LAYER_MODULES = {
    "0.norm": "norm_attention",
    "0.fn.to_out.0": "out",
    "1.norm": "norm_feedforward",
    "1.fn.net.0": "expand",
    "1.fn.net.3": "contract",
}
_LAYER_KEYS = {
    "0.fn.to_qkv.weight": "query_key_value.weight",
    **{f"{old}.{leaf}": f"{new}.{leaf}" for old, new in _LAYER_MODULES.items() for leaf in BOTH},
}
_TRANSFORMER_KEYS = {f"layers.N.{old}": f"layers.N.{new}" for old, new in _LAYER_KEYS.items()}
_TRANSFORMER_KEYS |= {f"norm.{leaf}": f"norm.{leaf}" for leaf in BOTH}
KEY_MAP: dict[str, str | None] = {
    **{f"{old}_pos_embedding": f"conditioner.{new}.positions" for old, new in _SIDES.items()},
    **{
        f"{old_side}_temporal_transformer.{old}": f"conditioner.{side}.{new}"
        for old_side, side in _SIDES.items()
        for old, new in _TRANSFORMER_KEYS.items()
    },
    **{
        f"multi_head_cross_attention.{old}.{leaf}": f"conditioner.fusion.{new}.{leaf}"
        for old, new in _FUSION_KEYS.items()
        for leaf in BOTH
    },
    **{f"visual_feature_proj.{leaf}": f"conditioner.out.{leaf}" for leaf in BOTH},
}
_CLIP_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
_CLIP_LAYER += tuple(f"self_attn.{projection}_proj" for projection in ("q", "k", "v", "out"))
# pre_layrnorm is misspelled in the published weights
_CLIP_MODULES = (*(f"encoder.layers.N.{module}" for module in _CLIP_LAYER), "pre_layrnorm", "post_layernorm")
_CLIP_KEYS = (
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight",
    "visual_projection.weight",
    *(f"vision_model.{module}.{leaf}" for module in _CLIP_MODULES for leaf in BOTH),
)
CLIP_KEY_MAP: dict[str, str | None] = {
    f"{CLIP_PREFIX}vision_model.embeddings.position_ids": None,  # 0, 1, 2, …, which older libraries saved
    **{f"{CLIP_PREFIX}{key}": key for key in _CLIP_KEYS},
}


def is_vidmuse(state: Iterable[str]) -> bool:
    """Return whether weights in audiocraft's layout have a visual conditioner."""
    return any(name in KEY_MAP or name.startswith(CLIP_PREFIX) for name in state)


def to_v2m(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Convert `best_state` to the states of `MusicModel` and CLIP. Raises DependencyError for others."""
    clip = {name: value for name, value in state.items() if name.startswith(CLIP_PREFIX)}
    conditioner = {name: value for name, value in state.items() if normalize_index(name) in KEY_MAP}
    lm = {name: value for name, value in state.items() if name not in clip and name not in conditioner}
    music_model = audiocraft.to_v2m(lm) | rename_keys(conditioner, KEY_MAP, MODEL_NAME)
    return music_model, rename_keys(clip, CLIP_KEY_MAP, CLIP_NAME)


def from_v2m(state: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the states of `MusicModel` and its CLIP to `best_state`, the inverse of `to_v2m`."""
    conditioner = {name: value for name, value in state.items() if name.startswith("conditioner.")}
    lm = {name: value for name, value in state.items() if name not in conditioner}
    visual = rename_keys(conditioner, invert(KEY_MAP), MODEL_NAME) | rename_keys(clip, invert(CLIP_KEY_MAP), CLIP_NAME)
    return audiocraft.from_v2m(lm) | visual


def config_to_v2m(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Convert `xp.cfg`, parsed, to `MusicConfig.to_dict`, with the conditioner's sizes of the weights.

    Raises DependencyError for a shape that v2m does not have, other sizes than the weights', or missing parts.
    """
    encoder = (cfg.get("video") or {}).get("visual_encoder", "clip")
    if encoder != "clip":
        raise DependencyError(f"video.visual_encoder {encoder!r} is not the published VidMuse's, 'clip'")
    if not ((cfg.get("video") or {}).get("add_global") or {}).get("if_add_gobal", True):  # so misspelt
        raise DependencyError("video.add_global.if_add_gobal False: v2m reads VidMuse with frames of the whole video")
    first = "local_temporal_transformer.layers.0"
    positions, qkv, ffn = "local_pos_embedding", f"{first}.0.fn.to_qkv.weight", f"{first}.1.fn.net.0.weight"
    if missing := [name for name in (positions, "global_pos_embedding", qkv, ffn) if name not in state]:
        lacking = truncate_list(missing)
        raise DependencyError(f"these weights of VidMuse lack {lacking}: v2m reads its published shape alone")
    config = audiocraft.config_to_v2m(cfg, state)
    num_heads, attention_dim = config["lm"]["num_heads"], state[qkv].shape[0] // 3
    if attention_dim % num_heads:
        raise DependencyError(
            f"transformer_lm.num_heads is {num_heads}, which {qkv} with {3 * attention_dim} rows cannot have"
        )
    config["conditioner"] = {
        "kind": "vidmuse",
        "vision_dim": state[positions].shape[2],
        "num_tokens": state[positions].shape[1],
        "num_layers": count_indices(state, "local_temporal_transformer.layers.N.0.norm.weight"),
        "num_heads": num_heads,
        "head_dim": attention_dim // num_heads,
        "ffn_dim": state[ffn].shape[0],
        "null_tokens": False,
        "num_fusion_heads": NUM_FUSION_HEADS,
    }
    return config


def config_from_v2m(values: Mapping[str, Any], **codec: Any) -> dict[str, Any]:
    """Convert `MusicConfig.to_dict` to `xp.cfg`; `codec` as in `audiocraft.config_from_v2m`."""
    conditioner = values.get("conditioner")
    if conditioner is None or conditioner["kind"] != "vidmuse":
        raise UsageError("VidMuse's layout holds models with its conditioner alone: write this one in another")
    if conditioner.get("null_tokens"):
        raise UsageError("VidMuse's layout has no place for learned nulls: write this model in another")
    num_heads, num_fusion_heads = conditioner["num_heads"], conditioner["num_fusion_heads"]
    if num_heads != values["lm"]["num_heads"] or num_fusion_heads != NUM_FUSION_HEADS:
        raise UsageError(
            f"VidMuse's conditioner has as many heads as the language model and {NUM_FUSION_HEADS} to fuse, not "
            f"{num_heads} and {num_fusion_heads}: write this model in another layout"
        )
    add_global = {"if_add_gobal": True, "mode": "average", "num_frames": NUM_GLOBAL_FRAMES, "global_feature_path": ""}
    video = {"visual_encoder": "clip", "video_fps": VIDEO_FPS, "video_overlap": 0, "add_global": add_global}
    return audiocraft.config_from_v2m(dict(values) | {"conditioner": None}, **codec) | {"video": video}


def clip_config(clip: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return config.json of `CLIPVisionModelWithProjection` for the weights that `to_v2m` returns."""
    embeddings = "vision_model.embeddings"
    try:
        table = clip[f"{embeddings}.position_embedding.weight"]
        patches = clip[f"{embeddings}.patch_embedding.weight"]
        ffn_dim = clip["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
        projection = clip["visual_projection.weight"].shape[0]
    except KeyError as error:
        raise DependencyError(f"these weights of VidMuse lack CLIP's {error}: fetch them again") from error
    width, patch = patches.shape[0], patches.shape[-1]
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": ffn_dim,
        "num_hidden_layers": count_indices(clip, "vision_model.encoder.layers.N.layer_norm1.weight"),
        "num_attention_heads": max(width // CLIP_HEAD_DIM, 1),
        "image_size": math.isqrt(table.shape[0] - 1) * patch,
        "patch_size": patch,
        "projection_dim": projection,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
