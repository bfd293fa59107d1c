"""Attention from what is written to what is heard, of which nothing changes from step to step.

R rows, H heads, h heads that are multiplied at once, q new steps, S tokens, d width of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from v2m.models.inference.fast_linear import OneDNNLinear, onednn_ops

HEADS_PER_PRODUCT = 8  # heads
MIN_PACKED_TOKENS = 256  # tokens from which `Settled` is the faster


class CrossKV(NamedTuple):
    """What the rows `begin` to `end` attend to in one layer, (R, H, S, d) each; `mask` (R, 1, 1, S) is added to
    the scores."""

    start: int
    end: int
    keys: Tensor
    values: Tensor
    mask: Tensor | None

    def __call__(self, query: Tensor) -> Tensor:
        """(R, H, q, d), already divided by √d → the same with what was found."""
        return attention(query, self.keys, self.values, self.mask)

    def pack(self) -> CrossKV | PackedCrossKV:
        """What answers single steps fastest."""
        pays = (
            self.keys.device.type == "cpu"
            and self.keys.dtype == torch.bfloat16
            and self.keys.shape[2] >= MIN_PACKED_TOKENS
        )
        return PackedCrossKV(self) if pays and onednn_ops() is not None else self


class PackedCrossKV:
    """An `Across` for one step at a time, its keys and values as weights of linear layers.

    oneDNN reads those as fast as the memory gives, and the operands of a product of a batch at a third of that, in
    bfloat16. It computes while it waits: a weight holds h heads side by side, and their queries are one block-diagonal
    matrix.
    """

    def __init__(self, cross_kv: CrossKV) -> None:
        self.start, self.end, self._mask = cross_kv.start, cross_kv.end, cross_kv.mask
        rows, heads, _, width = cross_kv.keys.shape
        h = math.gcd(heads, HEADS_PER_PRODUCT)
        self._shape = rows, heads // h, h, width
        own = torch.eye(h, dtype=cross_kv.keys.dtype)
        self._own = own[:, :, None]  # (h, h, 1)
        self._keys = [
            OneDNNLinear(part.transpose(0, 1).flatten(1), h) for row in cross_kv.keys for part in row.split(h)
        ]
        self._values = [
            OneDNNLinear(part.transpose(1, 2).flatten(0, 1), h) for row in cross_kv.values for part in row.split(h)
        ]

    def __call__(self, query: Tensor) -> Tensor:
        """(R, H, 1, d), already divided by √d → the same with what was found."""
        asked = query.to(self._own.dtype).view(-1, self._shape[2], 1, self._shape[3])
        blocks = (asked * self._own).flatten(2)  # (R · H / h, h, h · d)
        scores = torch.stack([keys(part) for keys, part in zip(self._keys, blocks.unbind(), strict=True)])
        scores = scores.view(*query.shape[:3], -1)  # (R, H, 1, S)
        shares = (scores if self._mask is None else scores.add_(self._mask)).softmax(dim=-1)
        parts = shares.view(*blocks.shape[:2], -1).unbind()
        found = torch.stack([values(part) for values, part in zip(self._values, parts, strict=True)])
        found = found.view(*blocks.shape[:2], *self._shape[2:]).diagonal(dim1=1, dim2=2)  # (R · H / h, d, h)
        return found.transpose(1, 2).reshape(query.shape).to(query.dtype)


def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """(R, H, q, d) queries, already divided by √d, over (R, H, e, d) → (R, H, q, d); `mask` is added to the scores."""
    asked = query.to(keys.dtype)
    if query.shape[2] > 1 or query.device.type != "cpu":
        found = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=1.0)
        return found.to(query.dtype)
    # PyTorch's fused kernel takes a single query over bfloat16 keys five times as long as two products do.
    scores = torch.bmm(asked.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).view(*query.shape[:3], -1)
    shares = (scores if mask is None else scores.add_(mask)).softmax(dim=-1)
    return torch.bmm(shares.flatten(0, 1), values.flatten(0, 1)).view(query.shape).to(query.dtype)
