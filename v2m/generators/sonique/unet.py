"""The 1-D U-Net of SONIQUE (`adp_cfg_1d` in its authors' terms): what of a noisy latent is noise.

Schneider et al., "Moûsai: Text-to-Music Generation with Long-Context Latent Diffusion" (2023), as it was used by early
Stable Audio models. The modules are named so that the published state dict loads as it is.

B batch, C latent channels, L latent frames, S condition tokens, D their width, M width of the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from v2m.generators.sonique.unet_blocks import NORM_GROUPS, PaddedConv1d, ResnetBlock, Transformer1d, Upsample1d

MAPPING_MULTIPLIER = 4  # M, in widths of the network
SKIP_SCALE = 2**-0.5


@dataclass(frozen=True)
class UNetConfig:
    """`latent` C, `context` D, `tokens` S. The rest is per level from the outside in: `multipliers` of `channels` (one
    more than there are levels), `factors` by which the length shrinks, `blocks`, and layers of `attentions`, the last
    of which are the middle's.
    """

    latent: int
    context: int
    tokens: int
    channels: int
    multipliers: Sequence[int]
    factors: Sequence[int]
    blocks: Sequence[int]
    attentions: Sequence[int]
    heads: int
    multiplier: int
    groups: int = 8
    kernel_multiplier: int = 2

    @property
    def frame_multiple(self) -> int:
        """L is a multiple of this."""
        return math.prod(self.factors)

    def problems(self) -> list[str]:
        """Why these make no network."""
        levels = len(self.multipliers) - 1
        told = []
        if not levels == len(self.factors) == len(self.blocks) == len(self.attentions) - 1 or levels < 1:
            told.append("multipliers, factors, num_blocks and attentions are not of one number of levels")
            return told
        widths = [self.channels * each for each in self.multipliers]
        told += [f"{width} channels are no multiple of {self.groups} groups" for width in widths if width % self.groups]
        seen = [width for width, layers in zip(widths[1:], self.attentions, strict=False) if layers] + widths[-1:]
        of = math.lcm(NORM_GROUPS, self.heads)
        told += [f"{width} channels are no multiple of {of}, as attention needs" for width in seen if width % of]
        return told


class DownBlock(nn.Module):
    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        channels, out = (config.channels * config.multipliers[level + more] for more in (0, 1))
        factor = config.factors[level]
        self.downsample = PaddedConv1d(channels, out, factor * config.kernel_multiplier + 1, stride=factor)
        self.blocks = nn.ModuleList(_resnet_block(config, out, out) for _ in range(config.blocks[level]))
        self.transformer = _transformer(config, level, out)

    def forward(self, x: Tensor, mapping: Tensor, context: Tensor, mask: Tensor) -> list[Tensor]:
        """What each block gives; the last goes on inwards, all of them across."""
        given = [self.downsample(x)]
        for block in self.blocks:
            given.append(block(given[-1], mapping))
        if self.transformer is not None:
            given.append(self.transformer(given[-1], context, mask))
        return given[1:]


class UpBlock(nn.Module):
    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        out, channels = (config.channels * config.multipliers[level + more] for more in (0, 1))
        count, factor = config.blocks[level] + bool(config.attentions[level]), config.factors[level]
        self.blocks = nn.ModuleList(_resnet_block(config, 2 * channels, channels) for _ in range(count))
        self.transformer = _transformer(config, level, channels)
        self.upsample = PaddedConv1d(channels, out, 3) if factor == 1 else Upsample1d(channels, out, factor)

    def forward(self, x: Tensor, across: list[Tensor], mapping: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        for block, skip in zip(self.blocks, reversed(across), strict=True):
            x = block(torch.cat([x, skip * SKIP_SCALE], dim=1), mapping)
        if self.transformer is not None:
            x = self.transformer(x, context, mask)
        return self.upsample(x)


class MidBlock(nn.Module):
    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        channels = config.channels * config.multipliers[-1]
        self.pre_block, self.post_block = (_resnet_block(config, channels, channels) for _ in range(2))
        self.transformer = _transformer(config, -1, channels)

    def forward(self, x: Tensor, mapping: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = self.pre_block(x, mapping)
        if self.transformer is not None:
            x = self.transformer(x, context, mask)
        return self.post_block(x, mapping)


class IOBlock(nn.Module):
    """What leads from the latents into the network, and out again."""

    def __init__(self, config: UNetConfig, channels: int, out: int) -> None:
        super().__init__()
        self.block = ResnetBlock(channels, out, mapping=config.channels * MAPPING_MULTIPLIER, groups=1)

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        return self.block(x, mapping)


class FourierTimeEmbedding(nn.Module):
    """The time of the diffusion (B,) → (B, channels + 1): itself, and waves of learned frequencies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(channels // 2))

    def forward(self, time: Tensor) -> Tensor:
        time = time[:, None].float()  # where the weights are rounded, the angle is not
        angle = 2 * math.pi * time * self.weights
        return torch.cat([time, angle.sin(), angle.cos()], dim=-1).to(self.weights.dtype)


class NullEmbedding(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)


class UNet(nn.Module):
    """Takes the shapes of `UNetSizes`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        wide, edge = config.channels * MAPPING_MULTIPLIER, config.channels * config.multipliers[0]
        levels = range(len(config.factors))
        self.to_time = nn.Sequential(
            nn.Sequential(FourierTimeEmbedding(config.channels), nn.Linear(config.channels + 1, wide)), nn.GELU()
        )
        self.to_mapping = nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU())
        self.to_in = IOBlock(config, config.latent, edge)
        self.downsamples = nn.ModuleList(DownBlock(config, level) for level in levels)
        self.bottleneck = MidBlock(config)
        self.upsamples = nn.ModuleList(UpBlock(config, level) for level in reversed(levels))
        self.to_out = IOBlock(config, edge, config.latent)
        self.fixed_embedding = NullEmbedding(config.tokens, config.context)

    @property
    def null_tokens(self) -> Tensor:
        """(S, D): the learned tokens that stand for no condition."""
        return self.fixed_embedding.embedding.weight

    def forward(self, x: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """The velocity (B, C, L) of `x` (B, C, L) at `time` (B,), from 0 (sound) to 1 (noise).

        Args:
            x: Latents of variance 1, noisy. L is a multiple of `sizes.frames`.
            time: Of the diffusion.
            context: Tokens (B, S, D) of the condition.
            mask: (B, S), which of them are not padding.
        """
        assert x.shape[-1] % self.config.frame_multiple == 0, (
            f"{x.shape[-1]} frames are no multiple of {self.config.frame_multiple}"
        )
        dtype = self.null_tokens.dtype
        x, context, mask = x.to(dtype), context.to(dtype), mask[..., None].to(dtype)
        mapping = self.to_mapping(self.to_time(time))
        first = x = self.to_in(x, mapping)
        across = []
        for down in self.downsamples:
            across.append(down(x, mapping, context, mask))
            x = across[-1][-1]
        x = self.bottleneck(x, mapping, context, mask)
        for up in self.upsamples:
            x = up(x, across.pop(), mapping, context, mask)
        return self.to_out(x + first, mapping)


def _resnet_block(config: UNetConfig, channels: int, out: int) -> ResnetBlock:
    return ResnetBlock(channels, out, mapping=config.channels * MAPPING_MULTIPLIER, groups=config.groups)


def _transformer(config: UNetConfig, level: int, channels: int) -> Transformer1d | None:
    layers = config.attentions[level]
    given = {"heads": config.heads, "multiplier": config.multiplier, "context": config.context}
    return Transformer1d(layers, channels, **given) if layers else None
