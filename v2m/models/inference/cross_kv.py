"""Cross-attention keys and values, computed once and kept for all decoding steps.

R rows, H heads, h heads that are multiplied at once, q new steps, S tokens, d dimension of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from v2m.models.inference.fast_linear import OneDNNLinear, onednn_ops

HEADS_PER_PRODUCT = 8  # h
MIN_PACKED_TOKENS = 256  # tokens from which `PackedCrossKV` is the faster


class CrossKV(NamedTuple):
    """Keys and values that the rows `start` to `end` attend to in one layer.

    (R, H, S, d) each; `mask` (R, 1, 1, S) is added to the scores.
    """

    start: int
    end: int
    keys: Tensor
    values: Tensor
    mask: Tensor | None

    def __call__(self, query: Tensor) -> Tensor:
        """Attend with queries (R, H, q, d), already divided by √d; the same shape out."""
        return attention(query, self.keys, self.values, self.mask)

    def pack(self) -> CrossKV | PackedCrossKV:
        """Return the form that answers single steps fastest."""
        long = self.keys.shape[2] >= MIN_PACKED_TOKENS
        pays = long and self.keys.device.type == "cpu" and self.keys.dtype == torch.bfloat16
        return PackedCrossKV(self) if pays and onednn_ops() is not None else self


class PackedCrossKV:
    """A `CrossKV` for one step at a time, its keys and values as weights of linear layers.

    oneDNN reads weights in bfloat16 as fast as the memory gives, but the operands of a batched product at a third of
    that. The arithmetic is free while it waits, so h heads share a weight, and their queries form one block-diagonal
    matrix. For one row, h = 2 heads and d = 3:

        queries (h, h · d)      weight (S, h · d)         scores (h, S)

        [a a a . . .]     @     [keys of head 0 |   ᵀ =   [q₀ · k₀ over S tokens]
        [. . . b b b]            keys of head 1]          [q₁ · k₁ over S tokens]

    The zeros keep the heads apart. The values go the other way, (h, S) probabilities times a weight (h · d, S), and
    give every head's probabilities on every head's values; of the result (h, h, d) the diagonal is what is wanted:

        head 0:  [own d values | of head 1, ignored]
        head 1:  [of head 0, ignored | own d values]
    """

    def __init__(self, cross_kv: CrossKV) -> None:
        self.start, self.end, self._mask = cross_kv.start, cross_kv.end, cross_kv.mask
        _, heads, _, self._head_dim = cross_kv.keys.shape
        self._heads = h = math.gcd(heads, HEADS_PER_PRODUCT)
        self._diagonal = torch.eye(h, dtype=cross_kv.keys.dtype)[:, :, None]  # (h, h, 1)
        # R · H / h weights each: (S, h · d) of keys, (h · d, S) of values
        self._keys = [
            OneDNNLinear(part.transpose(0, 1).flatten(1), h) for row in cross_kv.keys for part in row.split(h)
        ]
        self._values = [
            OneDNNLinear(part.transpose(1, 2).flatten(0, 1), h) for row in cross_kv.values for part in row.split(h)
        ]

    def __call__(self, query: Tensor) -> Tensor:
        """Attend with queries (R, H, 1, d), already divided by √d; the same shape out."""
        h, d = self._heads, self._head_dim
        heads = query.to(self._diagonal.dtype).view(-1, h, 1, d)
        blocks = (heads * self._diagonal).flatten(2)  # (R · H / h, h, h · d), block-diagonal
        scores = torch.stack([keys(block) for keys, block in zip(self._keys, blocks.unbind(), strict=True)])
        scores = scores.view(*query.shape[:3], -1)  # (R, H, 1, S)
        weights = (scores if self._mask is None else scores.add_(self._mask)).softmax(dim=-1)
        parts = weights.view(len(blocks), h, -1).unbind()  # (h, S) each
        out = torch.stack([values(part) for values, part in zip(self._values, parts, strict=True)])
        out = out.view(len(blocks), h, h, d).diagonal(dim1=1, dim2=2)  # (R · H / h, d, h)
        return out.transpose(1, 2).reshape(query.shape).to(query.dtype)


def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with queries (R, H, q, d), already divided by √d, over (R, H, e, d); `mask` is added to the scores."""
    query_ = query.to(keys.dtype)
    if query.shape[2] > 1 or query.device.type != "cpu":
        out = functional.scaled_dot_product_attention(query_, keys, values, attn_mask=mask, scale=1.0)
        return out.to(query.dtype)
    # PyTorch's fused kernel takes a single query over bfloat16 keys five times as long as two products do.
    scores = torch.bmm(query_.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).view(*query.shape[:3], -1)
    weights = (scores if mask is None else scores.add_(mask)).softmax(dim=-1)
    return torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).view(query.shape).to(query.dtype)
