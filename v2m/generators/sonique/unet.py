"""SONIQUE's denoising network, a 1-D U-Net (`adp_cfg_1d` in its authors' terms).

Schneider et al., "Moûsai: Text-to-Music Generation with Long-Context Latent Diffusion" (2023), as it was used by early
Stable Audio models. Modules are named as in the published state dict.

Inside, channels come last: linear layers take them so, and convolutions are fastest so. Classifier-free guidance gives
the same latents several conditions. Up to the first cross-attention nothing depends on these, so that the batch has a
row for each latent; from there on it has one for each condition of each.

B batch, C channels, L latent frames, S condition tokens, D their dimension, M dimension of the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, scaled_dot_product_attention

NORM_GROUPS = 32  # of the norm before each transformer
NORM_EPS = 1e-6
MAPPING_MULTIPLIER = 4  # M in units of `channels`
SKIP_SCALE = 2**-0.5


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the network: `latent_dim` C of the latents, `context_dim` D, `num_tokens` S.

    Sequences are per level from the outside in: `multipliers` of `channels` (one more than there are levels),
    downsampling `factors`, `num_blocks`, and `num_attention_layers`, the last of which are the mid block's.
    """

    latent_dim: int
    context_dim: int
    num_tokens: int
    channels: int
    multipliers: Sequence[int]
    factors: Sequence[int]
    num_blocks: Sequence[int]
    num_attention_layers: Sequence[int]
    num_heads: int
    feed_forward_multiplier: int
    norm_groups: int = 8
    downsample_kernel_multiplier: int = 2

    @property
    def mapping_dim(self) -> int:
        return self.channels * MAPPING_MULTIPLIER

    @property
    def frame_multiple(self) -> int:
        """Divisor that L must have."""
        return math.prod(self.factors)

    def problems(self) -> list[str]:
        """Contradictions between the sizes, each as a clause for an error message."""
        levels = len(self.multipliers) - 1
        if not levels == len(self.factors) == len(self.num_blocks) == len(self.num_attention_layers) - 1 or levels < 1:
            return ["multipliers, factors, num_blocks and attentions are not of one number of levels"]
        dims = [self.channels * multiplier for multiplier in self.multipliers]
        problems = [
            f"{dim} channels are no multiple of {self.norm_groups} groups" for dim in dims if dim % self.norm_groups
        ]
        with_attention = [dim for dim, layers in zip(dims[1:], self.num_attention_layers, strict=False) if layers]
        divisor = math.lcm(NORM_GROUPS, self.num_heads)
        problems += [
            f"{dim} channels are no multiple of {divisor}, as attention needs"
            for dim in with_attention + dims[-1:]
            if dim % divisor
        ]
        return problems


class CrossKV(NamedTuple):
    """Keys and values (conditions, S, C) of a cross-attention."""

    keys: Tensor
    values: Tensor


class BlockInputs(NamedTuple):
    """Inputs of all blocks: the mapping (1 or B, M), conditions, and the batch size that these make."""

    mapping: Tensor
    cross_kv: Mapping[nn.Module, CrossKV]  # by cross-attention
    batch: int  # B times the conditions that each latent has


class PaddedConv1d(nn.Conv1d):
    """Convolution over (B, L, C), by zeros on both sides: keeps the length, or divides it by its stride."""

    def forward(self, input: Tensor) -> Tensor:
        return channels_last_conv(self.pad(input), self.weight, self.bias, self.stride[0])

    def pad(self, x: Tensor) -> Tensor:
        """Add the zeros on both sides."""
        padding = self.kernel_size[0] - self.stride[0]
        return pad(x, (0, 0, padding - padding // 2, padding // 2)) if padding else x  # an odd one goes before


class Upsample1d(nn.ConvTranspose1d):
    """Transposed convolution over (B, L, C) that multiplies the length by `factor`."""

    def __init__(self, channels: int, out: int, factor: int) -> None:
        super().__init__(channels, out, 2 * factor, stride=factor)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        x, factor = super().forward(input.mT, output_size).mT, self.stride[0]
        return x[:, factor - factor // 2 : x.shape[1] - factor // 2]


class GroupNorm(nn.GroupNorm):
    """Group norm of (B, L, C)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.mT[:, :, None])[:, :, 0].mT  # a fourth dimension, for `torch.channels_last`


class ConvBlock(nn.Module):
    """Group norm, optional scale and shift, SiLU, convolution."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.groupnorm = GroupNorm(groups, channels)
        self.activation = nn.SiLU(inplace=True)
        self.project = PaddedConv1d(channels, out, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = self.groupnorm(x)
        if scale is not None and shift is not None:
            x = torch.addcmul(shift, x, scale + 1)
        return self.project(self.activation(x))


class ScaleShift(nn.Module):
    """Scale and shift (B, 1, C) each of a block's inner features, from the mapping (B, M)."""

    def __init__(self, mapping: int, channels: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Sequential(nn.SiLU(), nn.Linear(mapping, 2 * channels))

    def forward(self, mapping: Tensor) -> tuple[Tensor, ...]:
        return self.to_scale_shift(mapping)[:, None].chunk(2, dim=-1)


class ResnetBlock(nn.Module):
    """Residual block: two `ConvBlock`, the second one modulated by the mapping, plus the input."""

    def __init__(self, config: UNetConfig, channels: int, out: int, groups: int | None = None) -> None:
        super().__init__()
        groups = config.norm_groups if groups is None else groups
        self.block1 = ConvBlock(channels, out, groups)
        self.to_scale_shift = ScaleShift(config.mapping_dim, out)
        self.block2 = ConvBlock(out, out, groups)
        self.to_out = nn.Identity() if channels == out else PaddedConv1d(channels, out, 1)

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        scale, shift = self.to_scale_shift(inputs.mapping)
        if len(scale) > 1:
            scale, shift = repeat_rows(scale, len(x)), repeat_rows(shift, len(x))
        return self.block2(self.block1(x), scale, shift) + self.to_out(x)


class MultiHead(nn.Module):
    """Multi-head attention with an output projection."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_out = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (queries, keys, values))
        return self.to_out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """Self-attention over (B, L, C), or cross-attention to tokens (conditions, S, D)."""

    def __init__(self, channels: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        dim = context_dim or channels
        self.norm, self.norm_context = nn.LayerNorm(channels), nn.LayerNorm(dim)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(dim, 2 * channels, bias=False)
        self.attention = MultiHead(channels, num_heads)

    def key_values(self, context: Tensor, mask: Tensor | None = None) -> CrossKV:
        """Keys and values of tokens; `mask` (conditions, S, 1) is 0 for padding.

        Padding has zero keys and values but still takes its share of the softmax, as in training.
        """
        keys, values = self.to_kv(self.norm_context(context)).chunk(2, dim=-1)
        return CrossKV(keys, values) if mask is None else CrossKV(keys * mask, values * mask)

    def forward(self, x: Tensor, cross_kv: CrossKV | None = None) -> Tensor:
        """Attend. Conditions are of consecutive rows, as many for each."""
        queries = self.to_q(self.norm(x))
        if cross_kv is None:
            return self.attention(queries, *self.key_values(x))
        conditions = len(cross_kv.keys)
        together = queries.view(conditions, -1, x.shape[2])  # tokens have no order to the rows that attend to them
        return self.attention(together, *cross_kv).view(x.shape)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with a residual connection."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.attention = Attention(channels, config.num_heads)
        self.cross_attention = Attention(channels, config.num_heads, config.context_dim)
        inner = channels * config.feed_forward_multiplier
        self.feed_forward = nn.Sequential(nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        x = repeat_rows(self.attention(x) + x, inputs.batch)
        x = self.cross_attention(x, inputs.cross_kv[self.cross_attention]) + x
        return self.feed_forward(x) + x


class Transformer1d(nn.Module):
    """Transformer over (B, L, C)."""

    def __init__(self, config: UNetConfig, channels: int, layers: int) -> None:
        super().__init__()
        self.to_in = nn.Sequential(GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS), PaddedConv1d(channels, channels, 1))
        self.blocks = nn.ModuleList(TransformerBlock(config, channels) for _ in range(layers))
        # the published sequence has a transposition, without weights, at index 0
        self.to_out = nn.Sequential(nn.Identity(), PaddedConv1d(channels, channels, 1))

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        x = self.to_in(x)
        for layer in self.blocks:
            x = layer(x, inputs)
        return self.to_out(x)


class DownBlock(nn.Module):
    """Downsampling, then residual blocks and attention."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        channels, out = config.channels * config.multipliers[level], config.channels * config.multipliers[level + 1]
        factor = config.factors[level]
        self.downsample = PaddedConv1d(channels, out, factor * config.downsample_kernel_multiplier + 1, stride=factor)
        self.blocks = nn.ModuleList(ResnetBlock(config, out, out) for _ in range(config.num_blocks[level]))
        self.transformer = _transformer(config, level, out)

    def forward(self, x: Tensor, inputs: BlockInputs) -> list[Tensor]:
        """Outputs of all blocks: the last one is the next level's input, all are skip connections."""
        outputs = [self.downsample(x)]
        for block in self.blocks:
            outputs.append(block(outputs[-1], inputs))
        if self.transformer is not None:
            outputs.append(self.transformer(outputs[-1], inputs))
        return outputs[1:]


class UpBlock(nn.Module):
    """Residual blocks and attention over skip connections, then upsampling."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        out, channels = config.channels * config.multipliers[level], config.channels * config.multipliers[level + 1]
        count, factor = config.num_blocks[level] + bool(config.num_attention_layers[level]), config.factors[level]
        self.blocks = nn.ModuleList(ResnetBlock(config, 2 * channels, channels) for _ in range(count))
        self.transformer = _transformer(config, level, channels)
        self.upsample = PaddedConv1d(channels, out, 3) if factor == 1 else Upsample1d(channels, out, factor)

    def forward(self, x: Tensor, skips: list[Tensor], inputs: BlockInputs) -> Tensor:
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([x, repeat_rows(skip * SKIP_SCALE, len(x))], dim=-1), inputs)
        if self.transformer is not None:
            x = self.transformer(x, inputs)
        return self.upsample(x)


class MidBlock(nn.Module):
    """Two residual blocks around attention, at the lowest resolution."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        channels = config.channels * config.multipliers[-1]
        self.pre_block, self.post_block = (ResnetBlock(config, channels, channels) for _ in range(2))
        self.transformer = _transformer(config, -1, channels)

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        x = self.pre_block(x, inputs)
        if self.transformer is not None:
            x = self.transformer(x, inputs)
        return self.post_block(x, inputs)


class FourierTimeEmbedding(nn.Module):
    """Embedding of the diffusion time, (B,) → (B, channels + 1): itself, and sines of learned frequencies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(channels // 2))

    def forward(self, time: Tensor) -> Tensor:
        time = time[:, None].float()  # the angle stays in float32 where the weights are in 16 bits
        angle = 2 * math.pi * time * self.weights
        return torch.cat([time, angle.sin(), angle.cos()], dim=-1).to(self.weights.dtype)


class UNet(nn.Module):
    """The network; shapes as of `UNetConfig`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        mapping_dim, edge = config.mapping_dim, config.channels * config.multipliers[0]
        levels = range(len(config.factors))
        self.to_time = nn.Sequential(
            nn.Sequential(FourierTimeEmbedding(config.channels), nn.Linear(config.channels + 1, mapping_dim)), nn.GELU()
        )
        self.to_mapping = nn.Sequential(
            nn.Linear(mapping_dim, mapping_dim), nn.GELU(), nn.Linear(mapping_dim, mapping_dim), nn.GELU()
        )
        self.to_in = nn.ModuleDict({"block": ResnetBlock(config, config.latent_dim, edge, groups=1)})
        self.downsamples = nn.ModuleList(DownBlock(config, level) for level in levels)
        self.bottleneck = MidBlock(config)
        self.upsamples = nn.ModuleList(UpBlock(config, level) for level in reversed(levels))
        self.to_out = nn.ModuleDict({"block": ResnetBlock(config, edge, config.latent_dim, groups=1)})
        # learned tokens of the null condition
        self.fixed_embedding = nn.ModuleDict({"embedding": nn.Embedding(config.num_tokens, config.context_dim)})

    @property
    def null_tokens(self) -> Tensor:
        return self.fixed_embedding.get_parameter("embedding.weight")

    def forward(self, x: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Velocity (B, C, L) of `x`, noisy latents of variance 1, at `time` (B,) from 0 (clean) to 1.

        L is a multiple of `config.frame_multiple`. The condition is tokens (B, S, D) and their `mask` (B, S), 0 for
        padding.
        """
        return self.velocity(x, time, self.project_context(context, mask), len(context))

    def project_context(self, context: Tensor, mask: Tensor) -> dict[nn.Module, CrossKV]:
        """Keys and values of all cross-attentions, the same at each step, for tokens and mask as of `forward`."""
        dtype = self.null_tokens.dtype
        context, mask = context.to(dtype), mask[..., None].to(dtype)
        blocks = [module for module in self.modules() if isinstance(module, TransformerBlock)]
        return {block.cross_attention: block.cross_attention.key_values(context, mask) for block in blocks}

    def velocity(self, x: Tensor, time: Tensor, cross_kv: Mapping[nn.Module, CrossKV], batch: int) -> Tensor:
        """Velocities (`batch`, C, L) of `x` (B, C, L) at `time` (1 or B,), condition by condition.

        `cross_kv`, of `project_context`, has one condition for every B rows of the batch, or one for each row.
        """
        multiple = self.config.frame_multiple
        assert x.shape[-1] % multiple == 0, f"{x.shape[-1]} frames are no multiple of {multiple}"
        inputs = BlockInputs(self.to_mapping(self.to_time(time)), cross_kv, batch)
        x = x.mT.contiguous().to(self.null_tokens.dtype)  # (B, L, C)
        x_in = x = self.to_in["block"](x, inputs)
        skips = []
        for down in self.downsamples:
            skips.append(down(x, inputs))
            x = skips[-1][-1]
        x = self.bottleneck(x, inputs)
        for up in self.upsamples:
            x = up(x, skips.pop(), inputs)
        return self.to_out["block"](repeat_rows(x, batch) + repeat_rows(x_in, batch), inputs).mT


def repeat_rows(x: Tensor, batch: int) -> Tensor:
    """Repeat the rows of `x` (B, …) in turn up to `batch`, a multiple of B."""
    return x if len(x) == batch else x.repeat(batch // len(x), *[1] * (x.ndim - 1))


def channels_last_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolve (B, L, C) with `weight` (O, C, K), without padding: (B, L', O)."""
    image = x.mT[:, :, None]  # (B, C, 1, L) in the order of `torch.channels_last`
    return conv2d(image, weight[:, :, None], bias, (1, stride))[:, :, 0].mT


def _transformer(config: UNetConfig, level: int, channels: int) -> Transformer1d | None:
    layers = config.num_attention_layers[level]
    return Transformer1d(config, channels, layers) if layers else None
