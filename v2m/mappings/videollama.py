"""VideoLLaMA3 between the layout of its authors (DAMO-NLP-SG, model type `videollama3_qwen2`) and transformers' own.

The two models have the same parameters and the same arithmetic, read from both sources: a SigLIP encoder without
position table (tanh GELU, 2D rotary positions of base 10000, each frame attends to itself alone), 2×2 bilinear merging,
a two-layer GELU projector, Qwen2 (biases on q, k and v). They differ in names, in where the settings lie, and in the
placeholder: `<image>` (151665) for every frame there, `<|image_pad|>` and `<|video_pad|>` here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from v2m.core.errors import DependencyError

Value = TypeVar("Value")

ORIGINAL, NATIVE = "videollama3_qwen2", "video_llama_3"
IMAGE_TOKEN_ID = 151665  # <image>, in the original
IMAGE_PAD_ID, VIDEO_PAD_ID = 151655, 151656  # of every Qwen2.5 vocabulary

# below `model.`, a row a module: there, here, and which parameters it has; N stands for a layer's number
_BOTH, _WEIGHT = ("weight", "bias"), ("weight",)
_VISION_MODULES = (
    ("embeddings.patch_embedding", _BOTH),
    ("encoder.layers.N.layer_norm1", _BOTH),
    ("encoder.layers.N.layer_norm2", _BOTH),
    ("encoder.layers.N.self_attn.q_proj", _BOTH),
    ("encoder.layers.N.self_attn.k_proj", _BOTH),
    ("encoder.layers.N.self_attn.v_proj", _BOTH),
    ("encoder.layers.N.self_attn.out_proj", _BOTH),
    ("encoder.layers.N.mlp.fc1", _BOTH),
    ("encoder.layers.N.mlp.fc2", _BOTH),
    ("post_layernorm", _BOTH),
)
_TEXT_MODULES = (
    ("embed_tokens", _WEIGHT),
    ("layers.N.input_layernorm", _WEIGHT),
    ("layers.N.post_attention_layernorm", _WEIGHT),
    ("layers.N.self_attn.q_proj", _BOTH),
    ("layers.N.self_attn.k_proj", _BOTH),
    ("layers.N.self_attn.v_proj", _BOTH),
    ("layers.N.self_attn.o_proj", _WEIGHT),
    ("layers.N.mlp.gate_proj", _WEIGHT),
    ("layers.N.mlp.up_proj", _WEIGHT),
    ("layers.N.mlp.down_proj", _WEIGHT),
    ("norm", _WEIGHT),
)
_MODULES = (
    *((f"model.vision_encoder.{name}", f"model.vision_model.{name}", which) for name, which in _VISION_MODULES),
    *((f"model.mm_projector.readout.{n}", f"model.projector.readout.{n}", _BOTH) for n in (0, 2)),
    *((f"model.{name}", f"model.language_model.{name}", which) for name, which in _TEXT_MODULES),
    ("lm_head", "lm_head", _WEIGHT),
)
KEY_MAP = {f"{there}.{each}": f"{here}.{each}" for there, here, which in _MODULES for each in which}

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
_VISION_MODEL_TYPE = {ORIGINAL: "videollama3_vision_encoder", NATIVE: "video_llama_3_vision"}


def to_native(state: Mapping[str, Value]) -> dict[str, Value]:
    """The authors' names → transformers'; values are passed on as they are.

    Raises:
        DependencyError: A name is not one of the model's; all such names are told, the first three by name.
    """
    return _rename_keys(state, KEY_MAP, ORIGINAL)


def to_original(state: Mapping[str, Value]) -> dict[str, Value]:
    """transformers' names → the authors'; the inverse of `to_native`."""
    return _rename_keys(state, {here: there for there, here in KEY_MAP.items()}, NATIVE)


def _rename_keys(state: Mapping[str, Value], table: Mapping[str, str], layout: str) -> dict[str, Value]:
    renamed, unknown = {}, []
    for name, value in state.items():
        number = re.search(r"(?<=\.layers\.)(0|[1-9]\d*)(?=\.)", name)
        place = name[: number.start()] + "N" + name[number.end() :] if number else name
        if place not in table or (number is None and ".N." in name):
            unknown.append(name)
            continue
        renamed[table[place].replace(".N.", f".{number.group()}.") if number else table[place]] = value
    if unknown:
        named = ", ".join(map(repr, unknown[:3])) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise DependencyError(f"the weights hold {named}, which {layout} does not have: give a VideoLLaMA3 checkpoint")
    return renamed


def config_to_native(original: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' config.json as transformers' `video_llama_3` one.

    Raises:
        DependencyError: Another config, without sizes, with a separate vision encoder, or with another projector.
    """
    _check_config(original, ORIGINAL, "vision_encoder_config")
    if original.get("vision_encoder"):
        raise DependencyError(
            f"the vision encoder lies apart, in {original['vision_encoder']!r}: give a finished model"
        )
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
    """transformers' config.json as the authors' one; raises DependencyError as `config_to_native`."""
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
    if settings.get("model_type") != layout:
        raise DependencyError(
            f"model_type {settings.get('model_type')!r} is not {layout!r}: give a VideoLLaMA3 checkpoint"
        )
    flat = settings.get("text_config") if layout == NATIVE else settings
    sizes = TEXT_FIELDS[:6]
    lacking = [vision] if not isinstance(settings.get(vision), Mapping) else []
    lacking += [name for name in sizes if not isinstance(flat, Mapping) or not isinstance(flat.get(name), int)]
    if lacking:
        raise DependencyError(f"config.json of {layout} lacks {', '.join(lacking)}: fetch it again")
