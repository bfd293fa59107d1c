"""Latent diffusion models of stable-audio-tools: what their JSON says, and their weights under the names used here.

Of what that library can build, this reads what SONIQUE's `best_model.json` is made of: a mono autoencoder of the
Descript Audio Codec's convolutions with a VAE between them, a U-Net `adp_cfg_1d`, and as condition the tokens of CLAP's
text branch and whole seconds. Pure functions of dicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.mappings import dac
from v2m.mappings.state_dict_map import some

WHAT = "a latent diffusion model in the layout of stable-audio-tools"
WRAPPED, AVERAGE = "diffusion.", "diffusion_ema.ema_model."
UNET, AUTOENCODER, CONDITIONS = "model.model.", "pretransform.model.", "conditioner.conditioners."

# settings of the U-Net: theirs → of `v2m.generators.sonique.unet.UNetSizes`
_UNET = {
    "in_channels": "latent",
    "context_embedding_features": "context",
    "context_embedding_max_length": "tokens",
    "channels": "channels",
    "multipliers": "multipliers",
    "factors": "factors",
    "num_blocks": "blocks",
    "attentions": "attentions",
    "attention_heads": "heads",
    "attention_multiplier": "multiplier",
    "resnet_groups": "groups",
    "kernel_multiplier_downsample": "kernel_multiplier",
}
_OPTIONAL = {"resnet_groups", "kernel_multiplier_downsample"}
_FIXED = {"use_nearest_upsample": False, "use_skip_scale": True, "use_context_time": True, "patch_size": 1}


@dataclass(frozen=True)
class AutoencoderSizes:
    """`width` of the outermost layers and by how much each stage shrinks or stretches, of both halves; `encoded` is
    twice `latent`: mean and scale."""

    latent: int
    encoded: int
    encoder_width: int
    strides: tuple[int, ...]
    decoder_width: int
    rates: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """What a JSON says.

    `samples` are those of a window; `unet` are arguments of `UNetSizes`; `words` is the name of the condition that is
    text, `clap` where its weights are by the JSON, `layer` which of its hidden states is read; `seconds` are the
    numbers' names with their ranges; `order` is that of the condition's parts.
    """

    sample_rate: int
    samples: int
    hop: int
    unet: Mapping[str, Any]
    autoencoder: AutoencoderSizes
    words: str
    clap: str
    layer: int
    seconds: Mapping[str, tuple[int, int]]
    order: tuple[str, ...]
    problems: tuple[str, ...] = field(default=(), compare=False)


def settings(config: Mapping[str, Any]) -> Settings:
    """What a model's JSON says.

    Raises:
        MissingError: It is no such model's, or one with parts that are not known here; says all of them.
    """
    try:
        found = _read(config)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise DependencyError(f"these are not the settings of {WHAT} ({said})") from error
    if found.problems:
        raise DependencyError(f"this model is not known here: {'; '.join(found.problems)}")
    return found


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model of a checkpoint: as it is, or out of what trains it, where the U-Net is the averaged one."""
    if not any(name.startswith(WRAPPED) for name in state):
        return dict(state)
    out = {name.removeprefix(WRAPPED): value for name, value in state.items() if name.startswith(WRAPPED)}
    averaged = {name: value for name, value in state.items() if name.startswith(AVERAGE)}
    return out | {f"model.{name.removeprefix(AVERAGE)}": value for name, value in averaged.items()}


def unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of an unwrapped checkpoint that is `v2m.generators.sonique.unet.UNet`'s, whose names are the published ones."""
    return _below(UNET, state)


def autoencoder(state: Mapping[str, Tensor], sizes: AutoencoderSizes) -> dict[str, Tensor]:
    """The part of an unwrapped checkpoint that is `v2m.pretrained.codecs.oobleck.Autoencoder`'s.

    Raises:
        MissingError: It holds what that has not, or half of a weight norm.
    """
    names = dac.encoder("encoder.encoder.block", "encoder", len(sizes.strides))
    names |= dac.decoder("decoder.decoder.model", "decoder", len(sizes.rates))
    names["encoder.proj_out"] = "project"
    out, unknown = {}, []
    for key, value in dac.plain(_below(AUTOENCODER, state), WHAT).items():
        module, _, leaf = key.rpartition(".")
        if module in names:
            out[f"{names[module]}.{leaf}"] = value
        else:
            unknown.append(key)
    if unknown:
        raise DependencyError(f"these are not the weights of {WHAT}: its autoencoder has no {some(unknown)}")
    return out


def seconds(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The part of an unwrapped checkpoint that is the table of the numbers `name`."""
    return _below(f"{CONDITIONS}{name}.int_embedder.", state)


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _read(config: Mapping[str, Any]) -> Settings:
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
        **{name: (network.get(name, value), value) for name, value in _FIXED.items()},
    }
    problems = [f"{name} is {found!r}, not {wanted!r}" for name, (found, wanted) in expected.items() if found != wanted]
    strange = [name for name in network if name not in _UNET and name not in _FIXED]
    problems += [f"its U-Net has the settings {some(strange)}"] if strange else []
    order = tuple(diffusion["cross_attention_cond_ids"])
    given = [part["id"] for part in parts]
    problems += [] if sorted(order) == sorted(given) else [f"the U-Net attends to {order}, the conditions are {given}"]
    return Settings(
        sample_rate=int(config["sample_rate"]),
        samples=int(config["sample_size"]),
        hop=hop,
        unet={_UNET[name]: network[name] for name in _UNET if name in network or name not in _OPTIONAL},
        autoencoder=AutoencoderSizes(
            latent=int(halves["latent_dim"]),
            encoded=int(encoder["config"]["latent_dim"]),
            encoder_width=int(encoder["config"]["d_model"]),
            strides=strides,
            decoder_width=int(decoder["config"]["channels"]),
            rates=rates,
        ),
        words=text["id"],
        clap=str(text["config"].get("clap_ckpt_path", "")),
        layer=int(text["config"].get("feature_layer_ix", -1)),
        seconds={
            part["id"]: (int(part["config"].get("min_val", 0)), int(part["config"].get("max_val", 512)))
            for part in numbers
        },
        order=order,
        problems=tuple(problems),
    )
