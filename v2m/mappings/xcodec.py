"""YuE's X-Codec between the layout its authors published (SoundStream) and transformers' `XcodecModel`.

Pure functions of dicts, both ways. Nothing is dropped: what only training needs (`fc_post1`, `decoder_semantic`, the
codebooks' averages) has its place in both layouts. The published acoustic weights carry weight norm in its old form
(`weight_g`, `weight_v`), transformers' are plain; HuBERT's positional convolution is under weight norm in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.mappings import dac

STRIDES = (8, 5, 4, 2)  # the decoder pads the output of stride 5, in second place, and that alone
CODEBOOK_SIZE = 1024
SEMANTIC_PREFIX = "semantic_model."
_POSITION_CONV_PREFIX = SEMANTIC_PREFIX + "encoder.pos_conv_embed.conv."
_WEIGHT_NORM_KEYS = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


def config_to_transformers(
    generator: Mapping[str, Any], semantic: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Keyword arguments of transformers' `XcodecConfig`.

    Args:
        generator: The section `generator.config` of the published config.yaml.
        semantic: The published config.json of HuBERT.
        state: The published weights; the widths of the two acoustic halves are read off their shapes.

    Raises:
        DependencyError: The settings or the weights are not those of this codec.
    """
    ratios, entries = tuple(generator.get("ratios", STRIDES)), generator.get("bins", CODEBOOK_SIZE)
    if ratios != STRIDES or entries != CODEBOOK_SIZE:
        raise DependencyError(
            f"not YuE's X-Codec: ratios {list(ratios)} and {entries} entries a codebook, "
            f"where {list(STRIDES)} and {CODEBOOK_SIZE} are expected"
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
    """The published `codec_model` → the state dict of `XcodecModel`.

    Raises:
        DependencyError: A key is none of this codec's, or one half of a weight norm is missing; it is named.
    """
    modules, out, unknown = _module_map(state), {}, []
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if key.startswith(_POSITION_CONV_PREFIX):
            out[
                _POSITION_CONV_PREFIX
                + _WEIGHT_NORM_KEYS.get(
                    key.removeprefix(_POSITION_CONV_PREFIX), key.removeprefix(_POSITION_CONV_PREFIX)
                )
            ] = value
        elif key.startswith(SEMANTIC_PREFIX):
            out[key] = value
        elif module not in modules or leaf not in _parameter_names(modules[module], published=True):
            unknown.append(key)
        elif leaf == "weight_v" and f"{module}.weight_g" in state:
            out[f"{modules[module]}.weight"] = value * (state[f"{module}.weight_g"] / dac.weight_norm_g(value))
        elif leaf not in {"weight_g", "weight_v"}:
            out[f"{modules[module]}.{leaf}"] = value
        elif f"{module}.{_other_half(leaf)}" not in state:
            raise DependencyError(f"not YuE's X-Codec: {key!r} lacks its {_other_half(leaf)}")
    _check_unknown(unknown)
    return out


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `XcodecModel` → the published layout; each weight norm is computed from the plain weight.

    Raises:
        DependencyError: A key is none of this codec's; it is named.
    """
    modules, out, unknown = {new: old for old, new in _module_map(state).items()}, {}, []
    normed = {new: old for old, new in _WEIGHT_NORM_KEYS.items()}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if key.startswith(_POSITION_CONV_PREFIX):
            out[
                _POSITION_CONV_PREFIX
                + normed.get(key.removeprefix(_POSITION_CONV_PREFIX), key.removeprefix(_POSITION_CONV_PREFIX))
            ] = value
        elif key.startswith(SEMANTIC_PREFIX):
            out[key] = value
        elif module not in modules or leaf not in _parameter_names(module, published=False):
            unknown.append(key)
        elif leaf == "weight" and module.startswith("acoustic_"):
            out[f"{modules[module]}.weight_g"] = dac.weight_norm_g(value)
            out[f"{modules[module]}.weight_v"] = value
        else:
            out[f"{modules[module]}.{leaf}"] = value
    _check_unknown(unknown)
    return out


def _module_map(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Published name of every module with weights → transformers' name; HuBERT's, which are the same, are left out."""
    names = {"fc_prior": "fc", "fc_post1": "fc1", "fc_post2": "fc2"}
    names |= dac.encoder_key_map("encoder.block", "acoustic_encoder", len(STRIDES))
    names |= dac.decoder_key_map("decoder_2.model", "acoustic_decoder", len(STRIDES))
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


def _parameter_names(module: str, published: bool) -> set[str]:
    """Parameter names that transformers' module `module` may have."""
    if module.endswith(".codebook"):
        return {"inited", "cluster_size", "embed", "embed_avg"}
    if "snake" in module:
        return {"alpha"}
    return {"weight_g", "weight_v", "bias"} if published and module.startswith("acoustic_") else {"weight", "bias"}


def _other_half(leaf: str) -> str:
    return "weight_v" if leaf == "weight_g" else "weight_g"


def _check_unknown(unknown: list[str]) -> None:
    if unknown:
        raise DependencyError(f"not YuE's X-Codec: {len(unknown)} unknown weights, the first is {unknown[0]!r}")
