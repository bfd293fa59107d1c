"""VideoLLaMA3 between its authors' layout (DAMO-NLP-SG, `videollama3_qwen2`) and transformers' own.

The two models have the same parameters and the same arithmetic, read from both sources: a SigLIP encoder without
position table (tanh GELU, 2D rotary positions of base 10000, each frame attends to itself alone), 2×2 bilinear merging,
a two-layer GELU projector, Qwen2 (biases on q, k and v). They differ in names, in where the settings lie, and in the
placeholder: `<image>` (151665) for every frame there, `<|image_pad|>` and `<|video_pad|>` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v2m.core.errors import DependencyError
from v2m.mappings.state_dict_map import BOTH, Value, invert, rename_keys

ORIGINAL, NATIVE = "videollama3_qwen2", "video_llama_3"
IMAGE_TOKEN_ID = 151665  # <image>, in the original
IMAGE_PAD_ID, VIDEO_PAD_ID = 151655, 151656  # of every Qwen2.5 vocabulary

_VISION_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
_VISION_LAYER += tuple(f"self_attn.{projection}_proj" for projection in ("q", "k", "v", "out"))
_VISION_MODULES = "embeddings.patch_embedding", *(f"encoder.layers.N.{module}" for module in _VISION_LAYER)
_VISION_MODULES += ("post_layernorm",)
_TEXT_LAYER = (
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
    *(f"self_attn.{projection}_proj.{leaf}" for projection in ("q", "k", "v") for leaf in BOTH),
    *("self_attn.o_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"),
)
_TEXT_KEYS = ("embed_tokens.weight", *(f"layers.N.{key}" for key in _TEXT_LAYER), "norm.weight")
KEY_MAP: dict[str, str | None] = {
    **{
        f"model.vision_encoder.{module}.{leaf}": f"model.vision_model.{module}.{leaf}"
        for module in _VISION_MODULES
        for leaf in BOTH
    },
    **{
        f"model.mm_projector.readout.{n}.{leaf}": f"model.projector.readout.{n}.{leaf}" for n in (0, 2) for leaf in BOTH
    },
    **{f"model.{key}": f"model.language_model.{key}" for key in _TEXT_KEYS},
    "lm_head.weight": "lm_head.weight",
}

# settings of the language model, which lie flat in the original and in `text_config` here
TEXT_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
    *("use_cache", "use_sliding_window", "sliding_window", "max_window_layers", "attention_dropout"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
VISION_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "patch_size"),
    *("hidden_act", "layer_norm_eps", "attention_dropout"),
)
CURE = "give a VideoLLaMA3 checkpoint"
_VISION_MODEL_TYPE = {ORIGINAL: "videollama3_vision_encoder", NATIVE: "video_llama_3_vision"}


def to_native(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the weights to transformers' names. Raises DependencyError for an unknown name."""
    return rename_keys(state, KEY_MAP, f"VideoLLaMA3 ({ORIGINAL})", cure=CURE)


def to_original(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the weights from transformers' names to the authors', the inverse of `to_native`."""
    return rename_keys(state, invert(KEY_MAP), f"VideoLLaMA3 ({NATIVE})", cure=CURE)


def config_to_native(original: Mapping[str, Any]) -> dict[str, Any]:
    """Return the authors' config.json as transformers' one. Raises DependencyError for another model's."""
    _check_config(original, ORIGINAL, "vision_encoder_config")
    if encoder := original.get("vision_encoder"):
        raise DependencyError(f"the vision encoder lies apart, in {encoder!r}: give a finished model")
    if (kind := original.get("mm_projector_type", "mlp2x_gelu")) != "mlp2x_gelu":
        raise DependencyError(f"mm_projector_type {kind!r}: only mlp2x_gelu can be read")
    tied = bool(original.get("tie_word_embeddings", False))
    text = {"model_type": "qwen2", "tie_word_embeddings": tied} | _select(original, TEXT_FIELDS)
    scaling = original.get("rope_scaling") or {}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": original.get("rope_theta", 10000.0)} | scaling
    vision = original["vision_encoder_config"]
    return {
        "model_type": NATIVE,
        "architectures": ["VideoLlama3ForConditionalGeneration"],
        "text_config": text,
        "vision_config": {"model_type": _VISION_MODEL_TYPE[NATIVE]} | _select(vision, VISION_FIELDS),
        "image_token_id": IMAGE_PAD_ID,
        "video_token_id": VIDEO_PAD_ID,
        "tie_word_embeddings": tied,
    }


def config_to_original(native: Mapping[str, Any]) -> dict[str, Any]:
    """Return transformers' config.json as the authors' one, the inverse of `config_to_native`."""
    _check_config(native, NATIVE, "vision_config")
    text = native["text_config"]
    rope = dict(text.get("rope_parameters") or {})
    theta = rope.pop("rope_theta", text.get("rope_theta", 10000.0))
    return {
        "model_type": ORIGINAL,
        "architectures": ["Videollama3Qwen2ForCausalLM"],
        **_select(text, TEXT_FIELDS),
        "rope_theta": theta,
        "rope_scaling": rope if rope.get("rope_type", "default") != "default" else None,
        "tie_word_embeddings": bool(native.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
        "vision_encoder": None,
        "vision_encoder_config": {"model_type": _VISION_MODEL_TYPE[ORIGINAL]}
        | _select(native["vision_config"], VISION_FIELDS),
        "mm_projector_type": "mlp2x_gelu",
        "use_token_compression": True,
        "image_token_index": IMAGE_TOKEN_ID,
    }


def _select(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _check_config(settings: Mapping[str, Any], layout: str, vision: str) -> None:
    if (kind := settings.get("model_type")) != layout:
        raise DependencyError(f"model_type {kind!r} is not {layout!r}: {CURE}")
    text = settings.get("text_config") if layout == NATIVE else settings
    sizes = text if isinstance(text, Mapping) else {}
    missing = [vision] if not isinstance(settings.get(vision), Mapping) else []
    missing += [name for name in TEXT_FIELDS[:6] if not isinstance(sizes.get(name), int)]
    if missing:
        raise DependencyError(f"config.json of {layout} lacks {', '.join(missing)}: fetch it again")
