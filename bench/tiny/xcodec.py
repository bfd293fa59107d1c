"""A random X-Codec bundle in the format that YuE's authors published (`m-a-p/xcodec_mini_infer`), of any size.

Names and shapes are written out from the published layout; nothing here goes through `v2m.convert`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor
from transformers import HubertConfig, HubertModel

RATIOS = (8, 5, 4, 2)
CODEBOOKS, ENTRIES = 12, 1024
WINDOW, HOP = 3528, 882


@dataclass(frozen=True)
class Sizes:
    """Widths of the acoustic encoder's first layer, of the decoder's, of what lies between; of HuBERT; of Vocos."""

    encoder: int = 8
    decoder: int = 64
    latent: int = 8
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    inner: int = 64
    features: int = 32
    positions: int = 16
    vocos: int = 16
    vocos_inner: int = 32
    vocos_layers: int = 2


TINY = Sizes()
PUBLISHED = Sizes(64, 1024, 256, 768, 12, 12, 3072, 512, 128, 512, 1536, 8)


class State(dict[str, Tensor]):
    """A state dict being written: values that keep the scale of what flows through them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.random) * scale

    def linear(self, name: str, out: int, width: int, scale: float = 1.0) -> None:
        self[f"{name}.weight"] = self.normal(out, width, scale=scale / math.sqrt(width))
        self[f"{name}.bias"] = self.normal(out, scale=0.05)

    def convolution(self, name: str, shape: tuple[int, int, int], *, bias: bool = True) -> None:
        self[f"{name}.weight"] = self.normal(*shape, scale=1 / math.sqrt(shape[1] * shape[2]))
        if bias:
            self[f"{name}.bias"] = self.normal(shape[0], scale=0.05)

    def normed(self, name: str, shape: tuple[int, int, int], *, out: int | None = None, scale: float = 1.0) -> None:
        """Under weight norm in its old form; `out` channels where the convolution is transposed."""
        fan = shape[1] * shape[2] if out is None else 2 * shape[0]
        v = self.normal(*shape, scale=scale / math.sqrt(fan))
        stretch = 0.8 + 0.4 * torch.rand(shape[0], 1, 1, generator=self.random)
        self[f"{name}.weight_g"] = v.flatten(1).norm(dim=1)[:, None, None] * stretch
        self[f"{name}.weight_v"] = v
        self[f"{name}.bias"] = self.normal(out or shape[0], scale=0.05)

    def snake(self, name: str, width: int) -> None:
        self[f"{name}.alpha"] = 0.5 + torch.rand(1, width, 1, generator=self.random)

    def unit(self, name: str, width: int) -> None:
        self.snake(f"{name}.block.0", width)
        self.normed(f"{name}.block.1", (width, width, 7))
        self.snake(f"{name}.block.2", width)
        self.normed(f"{name}.block.3", (width, width, 1), scale=0.3)


def make(folder: Path, seed: int = 0, sizes: Sizes = TINY) -> Path:
    """Writes the bundle into `folder` and returns it. The same seed gives the same weights."""
    for name in ("final_ckpt", "decoders", "semantic_ckpts/hf_1_325000"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    state = State(seed)
    _acoustic(state, sizes)
    _semantic(state, sizes)
    _quantizer(state, sizes)
    state |= _hubert(folder / "semantic_ckpts/hf_1_325000", seed, sizes)
    config = {"n_filters": 32, "D": sizes.latent, "target_bandwidths": [0.5, 1, 1.5, 2, 4, 6], "ratios": list(RATIOS)}
    config |= {"sample_rate": 16000, "bins": ENTRIES}
    (folder / "final_ckpt/config.yaml").write_text(
        yaml.safe_dump({"generator": {"name": "SoundStream", "config": config}, "batch_size": 1})
    )
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    beside = {"optimizer_g": optimiser, "mpd": {"weight": torch.zeros(2)}, "epoch": 1, "iteration": 360000}
    torch.save({"codec_model": dict(state), **beside}, folder / "final_ckpt/ckpt_00360000.pth")
    for k, name in enumerate(("decoder_131000.pth", "decoder_151000.pth")):
        torch.save(_vocos(seed + 1 + k, sizes), folder / "decoders" / name)
    (folder / "decoders/config.yaml").write_text(yaml.safe_dump(_vocos_settings(sizes)))
    return folder


def _acoustic(state: State, sizes: Sizes) -> None:
    width = sizes.encoder
    state.normed("encoder.block.0", (width, 1, 7), scale=4)
    for n, stride in enumerate(RATIOS, 1):
        for unit in range(3):
            state.unit(f"encoder.block.{n}.block.{unit}", width)
        state.snake(f"encoder.block.{n}.block.3", width)
        state.normed(f"encoder.block.{n}.block.4", (2 * width, width, 2 * stride))
        width *= 2
    state.snake("encoder.block.5", width)
    state.normed("encoder.block.6", (sizes.latent, width, 3))
    width = sizes.decoder
    state.normed("decoder_2.model.0", (width, sizes.latent, 7))
    for n, stride in enumerate(RATIOS, 1):
        state.snake(f"decoder_2.model.{n}.block.0", width)
        state.normed(f"decoder_2.model.{n}.block.1", (width, width // 2, 2 * stride), out=width // 2)
        width //= 2
        for unit in range(3):
            state.unit(f"decoder_2.model.{n}.block.{unit + 2}", width)
    state.snake("decoder_2.model.5", width)
    state.normed("decoder_2.model.6", (1, width, 7), scale=0.1)


def _semantic(state: State, sizes: Sizes) -> None:
    width = sizes.hidden
    state.convolution("encoder_semantic.conv.conv", (width, width, 3), bias=False)
    for n in (1, 2):
        state.convolution(f"decoder_semantic.conv{n}.conv", (width, width, 3), bias=False)
    for half in ("encoder_semantic", "decoder_semantic"):
        for n in range(2):
            block = f"{half}.conv_blocks.{n}"
            state.convolution(f"{block}.conv.conv", (width, width, 3))
            for unit in range(2):
                state.convolution(f"{block}.res_units.{unit}.conv1.conv", (width, width, 3), bias=False)
                state.convolution(f"{block}.res_units.{unit}.conv2", (width, width, 1), bias=False)


def _quantizer(state: State, sizes: Sizes) -> None:
    width = sizes.latent + sizes.hidden
    state.linear("fc_prior", width, width)
    state.linear("fc_post1", sizes.hidden, width)
    state.linear("fc_post2", sizes.latent, width)
    for i in range(CODEBOOKS):
        book = f"quantizer.vq.layers.{i}._codebook"
        state[f"{book}.inited"] = torch.ones(1)
        state[f"{book}.cluster_size"] = 1 + torch.rand(ENTRIES, generator=state.random)
        state[f"{book}.embed"] = state.normal(ENTRIES, width, scale=0.8**i)
        state[f"{book}.embed_avg"] = state[f"{book}.embed"] * state[f"{book}.cluster_size"][:, None]


def _hubert(folder: Path, seed: int, sizes: Sizes) -> dict[str, Tensor]:
    """Writes HuBERT's own files; its weights under the names they have inside the codec."""
    config = HubertConfig(
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.inner,
        conv_dim=(sizes.features,) * 7,
        num_conv_pos_embeddings=sizes.positions,
        num_conv_pos_embedding_groups=4 if sizes.hidden < 64 else 16,
        architectures=["HubertModel"],
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2))
    extractor = {"do_normalize": True, "feature_size": 1, "padding_value": 0, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = HubertModel(config).state_dict()
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        weights = {key.replace(new, name): value for key, value in weights.items()}
    torch.save(weights, folder / "pytorch_model.bin")
    return {f"semantic_model.{key}": value for key, value in weights.items()}


def _vocos(seed: int, sizes: Sizes) -> dict[str, Tensor]:
    state, width = State(seed), sizes.vocos
    state.convolution("backbone.embed", (width, sizes.latent + sizes.hidden, 7))
    norms = ["backbone.norm", "backbone.final_layer_norm"]
    for n in range(sizes.vocos_layers):
        block = f"backbone.convnext.{n}"
        state.convolution(f"{block}.dwconv", (width, 1, 7))
        state.linear(f"{block}.pwconv1", sizes.vocos_inner, width)
        state.linear(f"{block}.pwconv2", width, sizes.vocos_inner)
        state[f"{block}.gamma"] = 0.5 + torch.rand(width, generator=state.random)
        norms.append(f"{block}.norm")
    for name in norms:
        state[f"{name}.weight"] = 1 + state.normal(width, scale=0.1)
        state[f"{name}.bias"] = state.normal(width, scale=0.1)
    state.linear("head.out", WINDOW + 2, width, scale=0.5)
    state["head.istft.window"] = torch.hann_window(WINDOW)
    return dict(state)


def _vocos_settings(sizes: Sizes) -> dict[str, object]:
    backbone = {"input_channels": sizes.latent + sizes.hidden, "dim": sizes.vocos}
    backbone |= {"intermediate_dim": sizes.vocos_inner, "num_layers": sizes.vocos_layers}
    head = {"dim": sizes.vocos, "n_fft": WINDOW, "hop_length": HOP, "padding": "same"}
    return {
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": backbone},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": head},
    }
