"""YuE's X-Codec between its authors' layout (SoundStream) and transformers' `XcodecModel`.

With it the convolutions of the Descript Audio Codec (DAC), of which X-Codec and SONIQUE's autoencoder consist: numbered
and under the old weight norm (`weight_g`, `weight_v`) there, named and plain in transformers' `DacModel`. Nothing is
dropped, not even what only training needs. HuBERT's positional convolution is under weight norm in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.mappings.state_dict_map import BOTH, invert, rename_keys

MODEL_NAME = "YuE's X-Codec"
STRIDES = (8, 5, 4, 2)  # the decoder pads the output of stride 5, in second place, and that alone
CODEBOOK_SIZE = 1024
SEMANTIC_PREFIX = "semantic_model."
_POSITION_CONV = SEMANTIC_PREFIX + "encoder.pos_conv_embed.conv"
_UNIT_LAYERS = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}  # of a DAC's residual unit
WEIGHT_NORM_KEYS = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
_POSITION_KEYS = {f"{_POSITION_CONV}.{old}": f"{_POSITION_CONV}.{new}" for old, new in WEIGHT_NORM_KEYS.items()}


def config_to_transformers(
    generator: Mapping[str, Any], semantic: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return keyword arguments of transformers' `XcodecConfig`. Raises DependencyError for another codec.

    `generator` is the section `generator.config` of the published config.yaml, `semantic` HuBERT's config.json; the
    shapes of the published weights give the widths of the two acoustic halves.
    """
    ratios, entries = tuple(generator.get("ratios", STRIDES)), generator.get("bins", CODEBOOK_SIZE)
    if ratios != STRIDES or entries != CODEBOOK_SIZE:
        raise DependencyError(
            f"not YuE's X-Codec: ratios {list(ratios)} and {entries} entries a codebook, where {list(STRIDES)} and "
            f"{CODEBOOK_SIZE} are expected"
        )
    try:
        return {
            "target_bandwidths": list(generator["target_bandwidths"]),
            "sample_rate": generator.get("sample_rate", 16000),
            "codebook_size": entries,
            "acoustic_model_config": {
                "encoder_hidden_size": state["encoder.block.0.weight_v"].shape[0],
                "downsampling_ratios": list(STRIDES),
                "decoder_hidden_size": state["decoder_2.model.0.weight_v"].shape[0],
                "upsampling_ratios": list(STRIDES),
                "hidden_size": state["fc_post2.weight"].shape[0],
            },
            "semantic_model_config": dict(semantic),
        }
    except KeyError as error:
        raise DependencyError(f"not YuE's X-Codec: {error} is missing") from error


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published `codec_model` to `XcodecModel`'s state. Raises DependencyError for others."""
    semantic, rest = _split_semantic(state, _POSITION_KEYS)
    return rename_keys(normalize_weight_v(rest, MODEL_NAME), _key_map(state), MODEL_NAME) | semantic


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state of `XcodecModel` to the published layout, with weight norm, as `to_transformers`."""
    semantic, rest = _split_semantic(state, {new: old for old, new in _POSITION_KEYS.items()})
    converted = rename_keys(rest, invert(_key_map(state)), MODEL_NAME)
    for key in [key for key in converted if key.endswith(".weight_v")]:
        converted[key.removesuffix("weight_v") + "weight_g"] = weight_norm_g(converted[key])
    return converted | semantic


def _split_semantic(state: Mapping[str, Tensor], names: Mapping[str, str]) -> tuple[dict[str, Tensor], ...]:
    """Return HuBERT's weights, renamed by `names`, and the others."""
    semantic = {names.get(key, key): value for key, value in state.items() if key.startswith(SEMANTIC_PREFIX)}
    return semantic, {key: value for key, value in state.items() if not key.startswith(SEMANTIC_PREFIX)}


def _key_map(state: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Return published → transformers' names of all weights but HuBERT's, which are the same."""
    keys: dict[str, str | None] = {}
    for old, new in _module_map(state).items():
        if new.endswith(".codebook"):
            keys |= {f"{old}.{leaf}": f"{new}.{leaf}" for leaf in ("inited", "cluster_size", "embed", "embed_avg")}
        elif new.startswith("acoustic_"):
            keys |= dac_leaves(old, new)
        else:
            keys |= {f"{old}.{leaf}": f"{new}.{leaf}" for leaf in BOTH}
    return keys


def _module_map(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return published → transformers' names of all modules with weights but HuBERT's, which are the same."""
    names = {"fc_prior": "fc", "fc_post1": "fc1", "fc_post2": "fc2"}
    names |= dac_encoder_modules("encoder.block", "acoustic_encoder", len(STRIDES))
    names |= dac_decoder_modules("decoder_2.model", "acoustic_decoder", len(STRIDES))
    names["encoder_semantic.conv.conv"] = "encoder_semantic.conv"
    names |= {f"decoder_semantic.conv{n}.conv": f"decoder_semantic.conv{n}" for n in (1, 2)}
    for half in ("encoder_semantic", "decoder_semantic"):
        for n in range(2):
            block = f"{half}.conv_blocks.{n}"
            names[f"{block}.conv.conv"] = f"{block}.conv"
            for unit in range(2):
                names[f"{block}.res_units.{unit}.conv1.conv"] = f"{block}.res_units.{unit}.conv1"
                names[f"{block}.res_units.{unit}.conv2"] = f"{block}.res_units.{unit}.conv2"
    for i in range(sum(key.endswith("codebook.embed") for key in state)):
        names[f"quantizer.vq.layers.{i}._codebook"] = f"quantizer.quantizers.{i}.codebook"
    return names


def dac_encoder_modules(published: str, new: str, num_stages: int) -> dict[str, str]:
    """Return published → transformers' names of all modules of a DAC encoder; both prefixes are given."""
    return _dac_modules(published, new, num_stages, {"3": "snake1", "4": "conv1"}, first_unit=0)


def dac_decoder_modules(published: str, new: str, num_stages: int) -> dict[str, str]:
    """Return the names of a DAC decoder; see `dac_encoder_modules`."""
    return _dac_modules(published, new, num_stages, {"0": "snake1", "1": "conv_t1"}, first_unit=2)


def _dac_modules(
    published: str, new: str, num_stages: int, resampling: Mapping[str, str], *, first_unit: int
) -> dict[str, str]:
    outer = {0: "conv1", num_stages + 1: "snake1", num_stages + 2: "conv2"}
    names = {f"{published}.{number}": f"{new}.{module}" for number, module in outer.items()}
    for stage in range(num_stages):
        old_stage, new_stage = f"{published}.{stage + 1}.block", f"{new}.block.{stage}"
        names |= {f"{old_stage}.{number}": f"{new_stage}.{module}" for number, module in resampling.items()}
        for unit in range(3):
            old_unit, new_unit = f"{old_stage}.{first_unit + unit}.block", f"{new_stage}.res_unit{unit + 1}"
            names |= {f"{old_unit}.{number}": f"{new_unit}.{layer}" for number, layer in _UNIT_LAYERS.items()}
    return names


def dac_leaves(published: str, new: str) -> dict[str, str | None]:
    """Return the key map of a DAC module's parameters: a Snake's, or a convolution's with weight norm."""
    if "snake" in new:
        return {f"{published}.alpha": f"{new}.alpha"}
    keys = {f"{published}.weight_v": f"{new}.weight", f"{published}.bias": f"{new}.bias"}
    return {f"{published}.weight_g": None, **keys}  # g, which `normalize_weight_v` has multiplied in


def normalize_weight_v(state: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    """Replace each `weight_v` of the old weight norm by g · v / |v|. Raises DependencyError for a half."""
    out = dict(state)
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if leaf in WEIGHT_NORM_KEYS:
            other = "weight_v" if leaf == "weight_g" else "weight_g"
            if f"{module}.{other}" not in state:
                raise DependencyError(f"not {model}: {key!r} lacks its {other}")
            if leaf == "weight_v":
                out[key] = value * (state[f"{module}.weight_g"] / weight_norm_g(value))
    return out


def weight_norm_g(weight: Tensor) -> Tensor:
    """Return the norm of a weight for each index of its first dimension (Salimans and Kingma, 2016)."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
