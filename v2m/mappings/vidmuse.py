"""VidMuse between its authors' layout (audiocraft's with a visual conditioner) and v2m's; its CLIP apart.

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
from v2m.mappings.state_dict_map import count_indices, invert, normalize_index, rename_keys, truncate_list

MODEL_NAME = "VidMuse"
CLIP_PREFIX = "visual_encoder_model."
NUM_FUSION_HEADS = 3
CLIP_HEAD_DIM = 64  # width of one head in every CLIP
VIDEO_FPS, NUM_GLOBAL_FRAMES = 2, 64
_BOTH = ("weight", "bias")
_SIDES = {"local": "near", "global": "whole"}
_FUSION_KEYS = {"query": "query", "key": "key", "value": "value", "final_linear": "mix", "norm1": "norm_attention"}
_FUSION_KEYS |= {"norm2": "norm"}
_LAYER_KEYS = {
    **{f"0.norm.{each}": f"norm_attention.{each}" for each in _BOTH},
    "0.fn.to_qkv.weight": "query_key_value.weight",
    **{f"0.fn.to_out.0.{each}": f"out.{each}" for each in _BOTH},
    **{f"1.norm.{each}": f"norm_feedforward.{each}" for each in _BOTH},
    **{f"1.fn.net.0.{each}": f"expand.{each}" for each in _BOTH},
    **{f"1.fn.net.3.{each}": f"contract.{each}" for each in _BOTH},
}
KEY_MAP: dict[str, str | None] = {
    **{f"{there}_pos_embedding": f"conditioner.{here}.positions" for there, here in _SIDES.items()},
    **{
        f"{there}_temporal_transformer.norm.{each}": f"conditioner.{here}.norm.{each}"
        for there, here in _SIDES.items()
        for each in _BOTH
    },
    **{
        f"{there}_temporal_transformer.layers.N.{old}": f"conditioner.{here}.layers.N.{new}"
        for there, here in _SIDES.items()
        for old, new in _LAYER_KEYS.items()
    },
    **{
        f"multi_head_cross_attention.{old}.{each}": f"conditioner.fusion.{new}.{each}"
        for old, new in _FUSION_KEYS.items()
        for each in _BOTH
    },
    **{f"visual_feature_proj.{each}": f"conditioner.out.{each}" for each in _BOTH},
}
_CLIP_LAYER = (
    "layer_norm1",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
    *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")),
)
_CLIP_MODULES = (
    *(f"vision_model.encoder.layers.N.{module}" for module in _CLIP_LAYER),
    "vision_model.pre_layrnorm",  # so misspelt
    "vision_model.post_layernorm",
)
CLIP_KEY_MAP: dict[str, str | None] = {
    f"{CLIP_PREFIX}vision_model.embeddings.position_ids": None,  # 0, 1, 2, …, which older libraries saved
    **{
        f"{CLIP_PREFIX}{name}": name
        for name in (
            "vision_model.embeddings.class_embedding",
            "vision_model.embeddings.patch_embedding.weight",
            "vision_model.embeddings.position_embedding.weight",
            "visual_projection.weight",
            *(f"{module}.{each}" for module in _CLIP_MODULES for each in _BOTH),
        )
    },
}


def is_vidmuse(state: Iterable[str]) -> bool:
    """Return whether weights in audiocraft's layout have a visual conditioner."""
    return any(name in KEY_MAP or name.startswith(CLIP_PREFIX) for name in state)


def to_v2m(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`best_state` → the states of `MusicModel`, and of transformers' `CLIPVisionModelWithProjection`.

    Raises:
        DependencyError: A name is not one of the model's; lists the first of them.
    """
    clip = {name: value for name, value in state.items() if name.startswith(CLIP_PREFIX)}
    seen = {name: value for name, value in state.items() if normalize_index(name) in KEY_MAP}
    rest = {name: value for name, value in state.items() if name not in clip and name not in seen}
    return audiocraft.to_v2m(rest) | rename_keys(seen, KEY_MAP, MODEL_NAME), rename_keys(
        clip, CLIP_KEY_MAP, "VidMuse's CLIP"
    )


def from_v2m(state: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_v2m`."""
    seen = {name: value for name, value in state.items() if name.startswith("conditioner.")}
    rest = {name: value for name, value in state.items() if name not in seen}
    return (
        audiocraft.from_v2m(rest)
        | rename_keys(seen, invert(KEY_MAP), MODEL_NAME)
        | rename_keys(clip, invert(CLIP_KEY_MAP), "VidMuse's CLIP")
    )


def config_to_v2m(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`xp.cfg`, parsed, as `MusicConfig.to_dict`; the conditioner's sizes are those of the weights.

    Raises:
        DependencyError: A shape that v2m does not have, other sizes than the weights', or missing parts.
    """
    encoder = (cfg.get("video") or {}).get("visual_encoder", "clip")
    if encoder != "clip":
        raise DependencyError(f"video.visual_encoder {encoder!r} is not the published VidMuse's, 'clip'")
    first = "local_temporal_transformer.layers.0"
    needed = (
        "local_pos_embedding",
        "global_pos_embedding",
        f"{first}.0.fn.to_qkv.weight",
        f"{first}.1.fn.net.0.weight",
    )
    lacking = [name for name in needed if name not in state]
    if lacking:
        raise DependencyError(
            f"these weights of VidMuse lack {truncate_list(lacking)}: v2m reads its published shape alone"
        )
    plain = audiocraft.config_to_v2m(cfg, state)
    heads, inner = plain["lm"]["num_heads"], state[needed[2]].shape[0] // 3
    if inner % heads:
        raise DependencyError(
            f"transformer_lm.num_heads is {heads}, which {needed[2]} with {3 * inner} rows cannot have"
        )
    plain["conditioner"] = {
        "kind": "vidmuse",
        "vision_dim": state[needed[0]].shape[2],
        "num_tokens": state[needed[0]].shape[1],
        "num_layers": count_indices(state, "local_temporal_transformer.layers.N.0.norm.weight"),
        "num_heads": heads,
        "head_dim": inner // heads,
        "ffn_dim": state[needed[3]].shape[0],
        "null_tokens": False,
        "num_fusion_heads": NUM_FUSION_HEADS,
    }
    return plain


def config_from_v2m(values: Mapping[str, Any], **codec: Any) -> dict[str, Any]:
    """The inverse of `config_to_v2m`; `codec` as in `audiocraft.config_from_v2m`.

    Raises:
        UsageError: VidMuse has no such model.
    """
    seen = values.get("conditioner")
    if seen is None or seen["kind"] != "vidmuse":
        raise UsageError("VidMuse's layout holds models with its conditioner alone: write this one in another")
    if seen.get("null_tokens"):
        raise UsageError("VidMuse's layout has no place for learned nulls: write this model in another")
    if seen["num_heads"] != values["lm"]["num_heads"] or seen["num_fusion_heads"] != NUM_FUSION_HEADS:
        raise UsageError(
            f"VidMuse's conditioner has as many heads as the language model and {NUM_FUSION_HEADS} to fuse, "
            f"not {seen['num_heads']} and {seen['num_fusion_heads']}: write this model in another layout"
        )
    everywhere = {"if_add_gobal": True, "mode": "average", "num_frames": NUM_GLOBAL_FRAMES, "global_feature_path": ""}
    video = {"visual_encoder": "clip", "video_fps": VIDEO_FPS, "video_overlap": 0, "add_global": everywhere}
    return audiocraft.config_from_v2m(dict(values) | {"conditioner": None}, **codec) | {"video": video}


def clip_config(clip: Mapping[str, Tensor]) -> dict[str, Any]:
    """config.json of transformers' `CLIPVisionModelWithProjection`, from the weights that `to_v2m` gives.

    Raises:
        DependencyError: They are not CLIP's.
    """
    embeddings = "vision_model.embeddings"
    try:
        table = clip[f"{embeddings}.position_embedding.weight"]
        patches = clip[f"{embeddings}.patch_embedding.weight"]
        inner = clip["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
        projection = clip["visual_projection.weight"].shape[0]
    except KeyError as error:
        raise DependencyError(f"these weights of VidMuse lack CLIP's {error}: fetch them again") from error
    width, patch = patches.shape[0], patches.shape[-1]
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": count_indices(clip, "vision_model.encoder.layers.N.layer_norm1.weight"),
        "num_attention_heads": max(width // CLIP_HEAD_DIM, 1),
        "image_size": math.isqrt(table.shape[0] - 1) * patch,
        "patch_size": patch,
        "projection_dim": projection,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
