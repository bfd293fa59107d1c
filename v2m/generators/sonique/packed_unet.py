"""The U-Net prepared for a CPU: packed layers, and attention in the fewest and fastest products.

A condition is the same at each step, so that cross-attention has constant keys and values. Queries times keys is then
one product of the normalized input with a matrix of tokens, and values times the output projection another: instead of
C² weights each has C times heads times tokens, and padding, whose keys are zero, makes a single column.

B batch, L frames, C channels, H heads, S condition tokens, D their dimension, P tokens that are not padding, and one
more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from v2m.core import compat
from v2m.core.compat import OneDNNOps
from v2m.generators.sonique.packed_layers import PackedLinear, pack_layer
from v2m.generators.sonique.unet import Attention, MultiHead, TransformerBlock, UNet

MAX_SCORES = 2**21  # attention scores at a time, in bfloat16 4 MiB, so that they stay in the cache


def pack_unet(unet: UNet, dtype: torch.dtype, *, int8: bool = False) -> None:
    """Replace layers and attention by packed ones, in place, and bring the rest to `dtype`.

    Each layer's weights are freed once they are packed: the peak is what the network takes in its old type. With
    `int8`, linear layers have 8-bit weights; needs `compat.onednn_int8_ops`. Where oneDNN does not take
    `dtype`, only the type changes.
    """
    ops = compat.onednn_ops() if compat.onednn_supports(dtype) else None
    if ops is not None:
        for block in [module for module in unet.modules() if isinstance(module, TransformerBlock)]:
            block.add_module("cross_attention", FoldedCrossAttention(block.cross_attention.to(dtype), ops))
            if dtype == torch.bfloat16:
                block.attention.add_module("attention", BlockwiseAttention(block.attention.attention))
        for parent in list(unet.modules()):
            for name, layer in list(parent.named_children()):
                packed = pack_layer(layer, ops, dtype, int8=int8)
                if packed is not None:
                    parent.add_module(name, packed)
                    layer.to("meta")
    unet.to(dtype)


class BlockwiseAttention(nn.Module):
    """`MultiHead` of a few heads at a time: PyTorch's own does not multiply bfloat16 in hardware on a CPU."""

    def __init__(self, attention: MultiHead) -> None:
        super().__init__()
        self.num_heads, self.to_out = attention.num_heads, attention.to_out

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        batch, frames, channels = queries.shape
        scaled = queries * (channels // self.num_heads) ** -0.5
        query, key, value = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).flatten(0, 1) for x in (scaled, keys, values)
        )  # (B · H, L, C / H)
        step = max(MAX_SCORES // frames**2, 1)
        out = [
            (q @ k.mT).softmax(dim=-1) @ v
            for q, k, v in zip(query.split(step), key.split(step), value.split(step), strict=True)
        ]
        return self.to_out(torch.cat(out).unflatten(0, (batch, -1)).transpose(1, 2).flatten(2))


class FoldedCondition(NamedTuple):
    """A condition's products, from C to scores (H · P) and from their softmax to C."""

    scores: PackedLinear
    out: PackedLinear


class FoldedCrossAttention(nn.Module):
    """Cross-attention whose keys and values are folded into its projections."""

    def __init__(self, attention: Attention, ops: OneDNNOps) -> None:
        super().__init__()
        self.norm, self._num_heads, self._ops = attention.norm, attention.attention.num_heads, ops
        self._attention = (attention,)  # in a tuple, so that it is no child: its layers stay as they are

    def key_values(self, context: Tensor, mask: Tensor) -> list[FoldedCondition]:
        """Fold tokens (conditions, S, D) and their `mask` (conditions, S, 1), 0 for padding."""
        (attention,) = self._attention
        keys, values = attention.key_values(context)
        return [self._fold(*condition) for condition in zip(keys, values, mask[..., 0] != 0, strict=True)]

    def _fold(self, keys: Tensor, values: Tensor, mask: Tensor) -> FoldedCondition:
        (attention,) = self._attention
        heads, dtype, num_padding = self._num_heads, keys.dtype, int((~mask).sum())
        key, value = (x[mask].float().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (keys, values))  # (H, P, d)
        projection = attention.attention.to_out
        query_weight = attention.to_q.weight.float().unflatten(0, (heads, -1))  # (H, d, C)
        out_weight = projection.weight.float().unflatten(1, (heads, -1)).transpose(0, 1)  # (H, C, d)
        scores, out = key.shape[-1] ** -0.5 * key @ query_weight, out_weight @ value.mT  # (H, P, C), (H, C, P)
        bias = scores.new_zeros(heads, scores.shape[1])
        if num_padding:  # zero keys and values, with their share of the softmax
            scores, out = nn.functional.pad(scores, (0, 0, 0, 1)), nn.functional.pad(out, (0, 1))
            bias = nn.functional.pad(bias, (0, 1), value=math.log(num_padding))
        return FoldedCondition(
            PackedLinear(scores.flatten(0, 1), bias.flatten(), self._ops, dtype),
            PackedLinear(out.transpose(0, 1).flatten(1), projection.bias, self._ops, dtype),
        )

    def forward(self, x: Tensor, conditions: list[FoldedCondition]) -> Tensor:
        """(B, L, C) → the same; conditions are of consecutive rows, as many for each."""
        rows = self.norm(x).chunk(len(conditions))
        return torch.cat([self._attend(part, *condition) for part, condition in zip(rows, conditions, strict=True)])

    def _attend(self, x: Tensor, scores: PackedLinear, out: PackedLinear) -> Tensor:
        return out(scores(x).unflatten(-1, (self._num_heads, -1)).softmax(dim=-1).flatten(-2))
