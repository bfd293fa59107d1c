"""Latent diffusion models of stable-audio-tools: their JSON, and their weights under our names.

Of what that library can build, this reads what SONIQUE's `best_model.json` is made of: a mono autoencoder of the
Descript Audio Codec's convolutions with a VAE between them, a U-Net `adp_cfg_1d`, and as condition the tokens of CLAP's
text branch and whole seconds. Pure functions of dicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from v2m.core.errors import DependencyError, error_text
from v2m.mappings.state_dict_map import BOTH, rename_keys, strip_prefix, truncate_list
from v2m.mappings.xcodec import dac_decoder_modules, dac_encoder_modules, dac_leaves, normalize_weight_v

MODEL_NAME = "a latent diffusion model in the layout of stable-audio-tools"
TRAINING_PREFIX, EMA_PREFIX = "diffusion.", "diffusion_ema.ema_model."
UNET_PREFIX, AUTOENCODER_PREFIX, CONDITIONER_PREFIX = "model.model.", "pretransform.model.", "conditioner.conditioners."

# settings of the U-Net: the library's name → field of `v2m.generators.sonique.unet.UNetConfig`
_UNET_KEYS = {
    "in_channels": "latent_dim",
    "context_embedding_features": "context_dim",
    "context_embedding_max_length": "num_tokens",
    "channels": "channels",
    "multipliers": "multipliers",
    "factors": "factors",
    "num_blocks": "num_blocks",
    "attentions": "num_attention_layers",
    "attention_heads": "num_heads",
    "attention_multiplier": "feed_forward_multiplier",
    "resnet_groups": "norm_groups",
    "kernel_multiplier_downsample": "downsample_kernel_multiplier",
}
_OPTIONAL_UNET_KEYS = {"resnet_groups", "kernel_multiplier_downsample"}
_REQUIRED_UNET_SETTINGS = {"use_nearest_upsample": False, "use_skip_scale": True, "use_context_time": True}
_REQUIRED_UNET_SETTINGS |= {"patch_size": 1}


@dataclass(frozen=True)
class AutoencoderConfig:
    """Channels of the outermost layers and strides of the stages, of both halves."""

    latent_dim: int
    encoder_dim: int  # twice latent_dim: mean and scale
    encoder_channels: int
    encoder_strides: tuple[int, ...]
    decoder_channels: int
    decoder_strides: tuple[int, ...]


@dataclass(frozen=True)
class StableAudioConfig:
    """Settings of a model's JSON."""

    sample_rate: int
    window_samples: int
    hop_length: int
    unet: Mapping[str, Any]  # arguments of the U-Net's config
    autoencoder: AutoencoderConfig
    text_cond: str  # name of the condition
    clap_path: str  # of CLAP's weights, by the JSON
    clap_layer: int  # whose hidden states are used
    number_ranges: Mapping[str, tuple[int, int]]  # of the numbers, by name
    cond_order: tuple[str, ...]


def parse_config(config: Mapping[str, Any]) -> StableAudioConfig:
    """Parse a model's JSON. Raises DependencyError, with all reasons, where it cannot be run."""
    try:
        parsed, problems = _parse(config)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else error_text(error)
        raise DependencyError(f"these are not the settings of {MODEL_NAME} ({reason})") from error
    if problems:
        raise DependencyError(f"v2m cannot run this model: {'; '.join(problems)}")
    return parsed


def unwrap_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the model of a checkpoint: as it is, or out of a training wrapper, with the EMA U-Net."""
    if not any(name.startswith(TRAINING_PREFIX) for name in state):
        return dict(state)
    ema = {f"model.{name}": value for name, value in strip_prefix(EMA_PREFIX, state).items()}
    return strip_prefix(TRAINING_PREFIX, state) | ema


def unet_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the U-Net of an unwrapped checkpoint, under the published names."""
    return strip_prefix(UNET_PREFIX, state)


def autoencoder_state(state: Mapping[str, Tensor], config: AutoencoderConfig) -> dict[str, Tensor]:
    """Return the autoencoder of an unwrapped checkpoint under `v2m.pretrained.codecs.oobleck`'s names.

    Raises DependencyError where it has unknown weights, or half of a weight norm.
    """
    modules = dac_encoder_modules("encoder.encoder.block", "encoder", len(config.encoder_strides))
    modules |= dac_decoder_modules("decoder.decoder.model", "decoder", len(config.decoder_strides))
    modules["encoder.proj_out"] = "project"
    key_map: dict[str, str | None] = {}
    for old, new in modules.items():
        key_map |= {f"{old}.{leaf}": f"{new}.{leaf}" for leaf in BOTH} | dac_leaves(old, new)  # with weight norm or not
    published = normalize_weight_v(strip_prefix(AUTOENCODER_PREFIX, state), MODEL_NAME)
    return rename_keys(published, key_map, f"the autoencoder of {MODEL_NAME}")


def number_embedding_state(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the embedding table of the number condition `name`."""
    return strip_prefix(f"{CONDITIONER_PREFIX}{name}.int_embedder.", state)


def _parse(config: Mapping[str, Any]) -> tuple[StableAudioConfig, list[str]]:
    """Return the settings, and what in them is not supported."""
    model = config["model"]
    pretransform, conditioning, diffusion = model["pretransform"], model["conditioning"], model["diffusion"]
    halves, parts = pretransform["config"], conditioning["configs"]
    encoder, decoder = halves["encoder"], halves["decoder"]
    text = next(part for part in [*parts, {"type": "clap_text", "id": "", "config": {}}] if part["type"] == "clap_text")
    numbers = [part for part in parts if part["type"] == "int"]
    hop, network = int(halves["downsampling_ratio"]), diffusion["config"]
    strides, rates = (tuple(half["config"][name]) for half, name in ((encoder, "strides"), (decoder, "rates")))
    expected = {
        "model_type": (config["model_type"], "diffusion_cond"),
        "audio_channels": (config["audio_channels"], 1),
        "pretransform": (pretransform["type"], "autoencoder"),
        "encoder": (encoder["type"], "dac"),
        "decoder": (decoder["type"], "dac"),
        "bottleneck": (halves["bottleneck"]["type"], "vae"),
        "scale of the latents": (pretransform.get("scale", 1.0), 1.0),
        "diffusion": (diffusion["type"], "adp_cfg_1d"),
        "objective": (diffusion.get("diffusion_objective", "v"), "v"),
        "conditions": (sorted(part["type"] for part in parts), ["clap_text", *["int"] * len(numbers)]),
        "use_text_features": (text["config"].get("use_text_features"), True),
        "strides": (math.prod(strides), hop),
        "rates": (math.prod(rates), hop),
        "latent channels of the encoder": (encoder["config"]["latent_dim"], 2 * halves["latent_dim"]),
        "latent channels of the decoder": (decoder["config"]["latent_dim"], halves["latent_dim"]),
        "latent channels of the U-Net": (network["in_channels"], halves["latent_dim"]),
        **{name: (network.get(name, value), value) for name, value in _REQUIRED_UNET_SETTINGS.items()},
    }
    problems = [f"{name} is {value!r}, not {only!r}" for name, (value, only) in expected.items() if value != only]
    if unknown := [name for name in network if name not in _UNET_KEYS and name not in _REQUIRED_UNET_SETTINGS]:
        problems.append(f"its U-Net has the settings {truncate_list(unknown)}")
    order, conditions = tuple(diffusion["cross_attention_cond_ids"]), [part["id"] for part in parts]
    if sorted(order) != sorted(conditions):
        problems.append(f"the U-Net attends to {order}, the conditions are {conditions}")
    absent = _OPTIONAL_UNET_KEYS - set(network)
    number_settings = {part["id"]: part["config"] for part in numbers}
    parsed = StableAudioConfig(
        sample_rate=int(config["sample_rate"]),
        window_samples=int(config["sample_size"]),
        hop_length=hop,
        unet={new: network[old] for old, new in _UNET_KEYS.items() if old not in absent},
        autoencoder=AutoencoderConfig(
            latent_dim=int(halves["latent_dim"]),
            encoder_dim=int(encoder["config"]["latent_dim"]),
            encoder_channels=int(encoder["config"]["d_model"]),
            encoder_strides=strides,
            decoder_channels=int(decoder["config"]["channels"]),
            decoder_strides=rates,
        ),
        text_cond=text["id"],
        clap_path=str(text["config"].get("clap_ckpt_path", "")),
        clap_layer=int(text["config"].get("feature_layer_ix", -1)),
        number_ranges={
            name: (int(settings.get("min_val", 0)), int(settings.get("max_val", 512)))
            for name, settings in number_settings.items()
        },
        cond_order=order,
    )
    return parsed, problems
