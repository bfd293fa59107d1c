"""EnCodec between audiocraft's layout (`best_state`, `xp.cfg`) and transformers' `EncodecModel`.

Nothing is dropped. The original package's names are audiocraft's. Weight norm keeps its two halves: `weight_g` and
`weight_v`, which transformers calls the originals of a parametrization.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.mappings.state_dict_map import rename_keys
from v2m.mappings.xcodec import WEIGHT_NORM_KEYS

# name in xp.cfg, name in transformers' config.json
_SEANET_KEYS = {
    "dimension": "hidden_size",
    "channels": "audio_channels",
    "causal": "use_causal_conv",
    "n_filters": "num_filters",
    "n_residual_layers": "num_residual_layers",
    "ratios": "upsampling_ratios",
    "norm": "norm_type",
    "kernel_size": "kernel_size",
    "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size",
    "dilation_base": "dilation_growth_rate",
    "pad_mode": "pad_mode",
    "compress": "compress",
    "lstm": "num_lstm_layers",
}
# what transformers' model always has
_REQUIRED_SETTINGS = {
    "activation": "ELU",
    "activation_params": {"alpha": 1.0},
    "norm_params": {},
    "disable_norm_outer_blocks": 0,
}
_REQUIRED_DECODER_SETTINGS = {"final_activation": None, "final_activation_params": None}
# names in audiocraft's layout and in transformers'; {fields} stand for what is the same in both
_KEY_TEMPLATES = {
    "quantizer.vq.layers.{n}._codebook.{codebook}": "quantizer.layers.{n}.codebook.{codebook}",
    "{half}.model.{n}.{lstm}": "{half}.layers.{n}.{lstm}",
    "{half}.model.{n}{inner}.{conv}.{conv}.{weight}": "{half}.layers.{n}{inner}.conv.{weight}",
    "{half}.model.{n}{inner}.{conv}.norm.{affine}": "{half}.layers.{n}{inner}.norm.{affine}",
}
_FIELD_PATTERNS = {
    "half": r"encoder|decoder",
    "n": r"\d+",
    "inner": r"\.block\.\d+|\.shortcut|",
    "conv": r"conv|convtr",
    "lstm": r"lstm\.(?:weight|bias)_[ih]h_l\d+",
    "codebook": r"inited|cluster_size|embed|embed_avg",
    "affine": r"weight|bias",
    "weight": r"weight|bias|weight_g|weight_v|parametrizations\.weight\.original[01]",
}


def _compile(template: str) -> re.Pattern[str]:
    """Return the pattern of a template, in which a repeated field stands for the same text."""
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for name, field in _FIELD_PATTERNS.items():
        pattern = pattern.replace(f"{{{name}}}", f"(?P<{name}>{field})", 1).replace(f"{{{name}}}", f"(?P={name})")
    return re.compile(pattern)


_AUDIOCRAFT_RULES = [(_compile(old), new) for old, new in _KEY_TEMPLATES.items()]
_TRANSFORMERS_RULES = [(_compile(new), old) for old, new in _KEY_TEMPLATES.items()]
_OLD_KEYS = {new: old for old, new in WEIGHT_NORM_KEYS.items()}
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def resolve_references(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve references "${section.name}". Raises DependencyError where one leads nowhere or in a circle."""

    def value(setting: Any, depth: int = 0) -> Any:
        if isinstance(setting, Mapping):
            return {key: value(item, depth) for key, item in setting.items()}
        if isinstance(setting, list | tuple):
            return [value(item, depth) for item in setting]
        match = _REFERENCE.fullmatch(setting) if isinstance(setting, str) else None
        if match is None:
            return setting
        target: Any = settings
        for part in match[1].split("."):
            if not isinstance(target, Mapping) or part not in target or depth > 8:
                raise DependencyError(f"the settings refer to {setting}, which they do not hold")
            target = target[part]
        return value(target, depth + 1)

    return value(settings)


def config_to_transformers(settings: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """Convert `xp.cfg`, parsed, to transformers' config.json.

    `settings` may refer to one another, as omegaconf's do; `state` is `best_state`, whose codebooks are compared.
    Raises DependencyError, which names it, for a setting that is missing or that transformers' model cannot have.
    """
    kind = settings.get("compression_model")
    if kind != "encodec":
        raise DependencyError(f"not an EnCodec of audiocraft: its compression_model is {kind!r}")
    sections = {name: settings.get(name) for name in ("seanet", "rvq", "encodec", "sample_rate", "channels")}
    resolved = resolve_references(settings)
    try:
        codec, quantizer = resolved["encodec"], resolved["rvq"]
        network = {**_REQUIRED_SETTINGS, **resolved["seanet"]}
        decoder = {**_REQUIRED_DECODER_SETTINGS, "trim_right_ratio": 1.0, **(network.get("decoder") or {})}
        _check_supported(network, decoder, codec)
        out = {name: network[old] for old, name in _SEANET_KEYS.items()}
        entries, rate, codebooks = int(quantizer["bins"]), int(codec["sample_rate"]), int(quantizer["n_q"])
        frame_rate = -(-rate // math.prod(out["upsampling_ratios"]))
    except (KeyError, TypeError, AttributeError) as error:
        absent = [name for name, section in sections.items() if section is None]
        problem = f"lack {', '.join(absent)}" if absent else f"lack or misstate {error}"
        raise DependencyError(f"not an EnCodec of audiocraft: its settings {problem}") from error
    _check_codebooks(codebooks, entries, state or {})
    return out | {
        "model_type": "encodec",
        "architectures": ["EncodecModel"],
        "sampling_rate": rate,
        "normalize": bool(codec.get("renormalize", False)),
        "use_conv_shortcut": not network["true_skip"],
        "trim_right_ratio": float(decoder["trim_right_ratio"]),
        "codebook_size": entries,
        "codebook_dim": out["hidden_size"],
        "target_bandwidths": [_bandwidth(codebooks, frame_rate * math.ceil(math.log2(entries)))],
        "chunk_length_s": None,
        "overlap": None,
    }


def config_from_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert transformers' complete config.json to what audiocraft's loader reads of `xp.cfg`."""
    if config.get("model_type") != "encodec":
        raise DependencyError(f"not an EnCodec of transformers: its model_type is {config.get('model_type')!r}")
    if config.get("chunk_length_s") is not None:
        raise DependencyError("audiocraft has no EnCodec that works in chunks (chunk_length_s), as this one does")
    try:
        network = {old: config[name] for old, name in _SEANET_KEYS.items()}
        rate, entries = config["sampling_rate"], config["codebook_size"]
        bits = -(-rate // math.prod(config["upsampling_ratios"])) * math.ceil(math.log2(entries))
        ending = {**_REQUIRED_DECODER_SETTINGS, "trim_right_ratio": config["trim_right_ratio"]}
        shared = {"sample_rate": rate, "channels": config["audio_channels"]}
        return {
            "solver": "compression",
            "device": "cpu",
            "compression_model": "encodec",
            **shared,
            "seanet": network
            | _REQUIRED_SETTINGS
            | {"ratios": list(network["ratios"]), "true_skip": not config["use_conv_shortcut"]}
            | {"encoder": {}, "decoder": ending},
            "rvq": {"n_q": int(1000 * config["target_bandwidths"][-1] // bits), "bins": entries},
            "encodec": {"autoencoder": "seanet", "quantizer": "rvq", **shared}
            | {"causal": config["use_causal_conv"], "renormalize": bool(config["normalize"])},
        }
    except KeyError as error:
        raise DependencyError(f"not an EnCodec of transformers: its config.json lacks {error}") from error


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert `best_state` to the state of `EncodecModel`. Raises DependencyError for an unknown name."""
    names = {key: name for key in state if (name := _rename(key, _AUDIOCRAFT_RULES, WEIGHT_NORM_KEYS))}
    return rename_keys(state, names, "an EnCodec")


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state of `EncodecModel`, with either name of weight norm, as `to_transformers` does."""
    last = max((int(key.split(".")[2]) for key in state if re.match(r"decoder\.layers\.\d+\.", key)), default=0)
    names = {key: _rename(key, _TRANSFORMERS_RULES, _OLD_KEYS, conv=_convolution(key, last)) for key in state}
    return rename_keys(state, {key: name for key, name in names.items() if name}, "an EnCodec")


def _convolution(key: str, last: int) -> str:
    """Return audiocraft's name of a convolution; those between the decoder's outer layers are transposed."""
    match = re.match(r"decoder\.layers\.(\d+)\.(?:conv|norm)\.", key)
    return "convtr" if match and 0 < int(match[1]) < last else "conv"


def _rename(
    key: str, rules: Sequence[tuple[re.Pattern[str], str]], weight_keys: Mapping[str, str], **fields: str
) -> str | None:
    """Return the name of a weight in the other layout by the rule that matches; None for an unknown one."""
    for pattern, template in rules:
        if match := pattern.fullmatch(key):
            groups = match.groupdict()
            weight = groups.get("weight", "")
            return template.format(**{**groups, **fields, "weight": weight_keys.get(weight, weight)})
    return None


def _check_supported(network: Mapping[str, Any], decoder: Mapping[str, Any], codec: Mapping[str, Any]) -> None:
    """Raise DependencyError for settings that transformers' model does not have."""
    unsupported = [
        f"seanet.{name} {network[name]!r}" for name, only in _REQUIRED_SETTINGS.items() if network[name] != only
    ]
    supported = {**_REQUIRED_DECODER_SETTINGS, "trim_right_ratio": decoder["trim_right_ratio"]}
    unsupported += [
        f"seanet.decoder.{name} {value!r}"
        for name, value in decoder.items()
        if name not in supported or supported[name] != value
    ]
    unsupported += [f"seanet.encoder.{name} {value!r}" for name, value in (network.get("encoder") or {}).items()]
    unsupported += [] if network["lstm"] else [f"seanet.lstm {network['lstm']!r}"]
    if network["norm"] not in {"weight_norm", "time_group_norm"}:
        unsupported.append(f"seanet.norm {network['norm']!r}")
    kinds = {"autoencoder": "seanet", "quantizer": "rvq"}
    unsupported += [f"encodec.{name} {codec[name]!r}" for name, only in kinds.items() if codec[name] != only]
    if unsupported:
        raise DependencyError(f"an EnCodec of audiocraft that transformers' model cannot be: {', '.join(unsupported)}")


def _check_codebooks(codebooks: int, entries: int, state: Mapping[str, Tensor]) -> None:
    books = [value for key, value in state.items() if key.endswith("._codebook.embed")]
    if books and (len(books), len(books[0])) != (codebooks, entries):
        actual = f"{len(books)} codebooks of {len(books[0])} entries"
        raise DependencyError(f"settings of {codebooks} codebooks of {entries} entries go with weights of {actual}")


def _bandwidth(codebooks: int, bits: int) -> float:
    """Return kbit/s from which transformers, which rounds down, computes this number of codebooks."""
    rate = codebooks * bits / 1000
    return rate if 1000 * rate // bits == codebooks else math.nextafter(rate, math.inf)
