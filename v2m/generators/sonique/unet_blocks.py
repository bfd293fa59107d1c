"""Blocks of SONIQUE's 1-D U-Net: residual convolutions and transformers over time.

B batch, C channels, L latent frames, S condition tokens, D their dimension, M dimension of the mapping. Modules
are named as in the published state dict.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

NORM_GROUPS = 32  # of the norm before each transformer
NORM_EPS = 1e-6


class PaddedConv1d(nn.Conv1d):
    """Convolution that keeps the length, or divides it by its stride, by zeros on both sides."""

    def forward(self, input: Tensor) -> Tensor:
        padding = self.kernel_size[0] - self.stride[0]
        return super().forward(pad(input, (padding - padding // 2, padding // 2)))  # an odd one goes before


class Upsample1d(nn.ConvTranspose1d):
    """Transposed convolution that multiplies the length by `factor`."""

    def __init__(self, channels: int, out: int, factor: int) -> None:
        super().__init__(channels, out, 2 * factor, stride=factor)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        x, factor = super().forward(input, output_size), self.stride[0]
        return x[..., factor - factor // 2 : x.shape[-1] - factor // 2]


class ConvBlock(nn.Module):
    """Group norm, optional scale and shift, SiLU, convolution."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.groupnorm = nn.GroupNorm(groups, channels)
        self.activation = nn.SiLU()
        self.project = PaddedConv1d(channels, out, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = self.groupnorm(x)
        if scale is not None and shift is not None:
            x = x * (scale + 1) + shift
        return self.project(self.activation(x))


class ScaleShift(nn.Module):
    """Scale and shift (B, C, 1) each of a block's inner features, from the mapping (B, M)."""

    def __init__(self, mapping: int, channels: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Sequential(nn.SiLU(), nn.Linear(mapping, 2 * channels))

    def forward(self, mapping: Tensor) -> tuple[Tensor, ...]:
        return self.to_scale_shift(mapping)[..., None].chunk(2, dim=1)


class ResnetBlock(nn.Module):
    """Residual block: two `ConvBlock`, the second one modulated by the mapping, plus the input."""

    def __init__(self, channels: int, out: int, *, mapping: int, groups: int) -> None:
        super().__init__()
        self.block1 = ConvBlock(channels, out, groups)
        self.to_scale_shift = ScaleShift(mapping, out)
        self.block2 = ConvBlock(out, out, groups)
        self.to_out = nn.Identity() if channels == out else PaddedConv1d(channels, out, 1)

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        scale, shift = self.to_scale_shift(mapping)
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
    """Self-attention over (B, L, C), or cross-attention to tokens (B, S, D)."""

    def __init__(self, channels: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        dim = context_dim or channels
        self.norm, self.norm_context = nn.LayerNorm(channels), nn.LayerNorm(dim)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(dim, 2 * channels, bias=False)
        self.attention = MultiHead(channels, num_heads)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` (B, S, 1) is 0 for padding.

        Padding has zero keys and values but still takes its share of the softmax, as in training.
        """
        keys, values = self.to_kv(self.norm_context(x if context is None else context)).chunk(2, dim=-1)
        if mask is not None:
            keys, values = keys * mask, values * mask
        return self.attention(self.to_q(self.norm(x)), keys, values)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with a residual connection."""

    def __init__(self, channels: int, *, num_heads: int, multiplier: int, context_dim: int) -> None:
        super().__init__()
        self.attention = Attention(channels, num_heads)
        self.cross_attention = Attention(channels, num_heads, context_dim)
        inner = channels * multiplier
        self.feed_forward = nn.Sequential(nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x) + x
        x = self.cross_attention(x, context, mask) + x
        return self.feed_forward(x) + x


class Transformer1d(nn.Module):
    """Transformer over (B, C, L)."""

    def __init__(self, layers: int, channels: int, *, num_heads: int, multiplier: int, context_dim: int) -> None:
        super().__init__()
        self.to_in = nn.Sequential(nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS), nn.Conv1d(channels, channels, 1))
        sizes = {"num_heads": num_heads, "multiplier": multiplier, "context_dim": context_dim}
        self.blocks = nn.ModuleList(TransformerBlock(channels, **sizes) for _ in range(layers))
        # the published sequence has a transposition, without weights, at index 0
        self.to_out = nn.Sequential(nn.Identity(), nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = self.to_in(x).mT
        for layer in self.blocks:
            x = layer(x, context, mask)
        return self.to_out(x.mT)
