"""The blocks of the 1-D U-Net that SONIQUE denoises with: residual convolutions and transformers over time.

B batch, C channels, L latent frames, S condition tokens, D their width, M width of the mapping. The modules are named
so that the published state dict loads as it is.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

NORM_GROUPS = 32  # of the norm before each transformer
NORM_EPS = 1e-6


class PaddedConv1d(nn.Conv1d):
    """Keeps the length, or divides it by its stride: zeros before and after, one more before where they are odd."""

    def forward(self, input: Tensor) -> Tensor:
        around = self.kernel_size[0] - self.stride[0]
        return super().forward(pad(input, (around - around // 2, around // 2)))


class Upsample1d(nn.ConvTranspose1d):
    """Multiplies the length by `factor`."""

    def __init__(self, channels: int, out: int, factor: int) -> None:
        super().__init__(channels, out, 2 * factor, stride=factor)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        spread, factor = super().forward(input, output_size), self.stride[0]
        return spread[..., factor - factor // 2 : spread.shape[-1] - factor // 2]


class ConvBlock(nn.Module):
    """Norm, scale and shift if there are any, SiLU, convolution."""

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
    """The mapping (B, M) → how a block's inner features are scaled and shifted, (B, C, 1) each."""

    def __init__(self, mapping: int, channels: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Sequential(nn.SiLU(), nn.Linear(mapping, 2 * channels))

    def forward(self, mapping: Tensor) -> tuple[Tensor, ...]:
        return self.to_scale_shift(mapping)[..., None].chunk(2, dim=1)


class ResnetBlock(nn.Module):
    """Two steps around what the mapping says, and the way past them."""

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
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_out = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query, key, value = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (queries, keys, values))
        return self.to_out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """From (B, L, C) to itself, or to tokens (B, S, D)."""

    def __init__(self, channels: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        width = context or channels
        self.norm, self.norm_context = nn.LayerNorm(channels), nn.LayerNorm(width)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(width, 2 * channels, bias=False)
        self.attention = MultiHead(channels, heads)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`mask` (B, S, 1) is 1 for tokens and 0 for padding, whose keys and values are 0: it still takes its share of
        the attention, as in training."""
        keys, values = self.to_kv(self.norm_context(x if context is None else context)).chunk(2, dim=-1)
        if mask is not None:
            keys, values = keys * mask, values * mask
        return self.attention(self.to_q(self.norm(x)), keys, values)


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, *, heads: int, multiplier: int, context: int) -> None:
        super().__init__()
        self.attention = Attention(channels, heads)
        self.cross_attention = Attention(channels, heads, context)
        inner = channels * multiplier
        self.feed_forward = nn.Sequential(nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x) + x
        x = self.cross_attention(x, context, mask) + x
        return self.feed_forward(x) + x


class Transformer1d(nn.Module):
    """Layers over (B, C, L) without a way past them: each has its own."""

    def __init__(self, layers: int, channels: int, *, heads: int, multiplier: int, context: int) -> None:
        super().__init__()
        self.to_in = nn.Sequential(nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS), nn.Conv1d(channels, channels, 1))
        sizes = {"heads": heads, "multiplier": multiplier, "context": context}
        self.blocks = nn.ModuleList(TransformerBlock(channels, **sizes) for _ in range(layers))
        # the published sequences hold a turning of axes, which has no weights, at this place
        self.to_out = nn.Sequential(nn.Identity(), nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = self.to_in(x).mT
        for layer in self.blocks:
            x = layer(x, context, mask)
        return self.to_out(x.mT)
