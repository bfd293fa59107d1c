"""The layers of a music language model, passed through with a memory: what a decoder does at each step.

R rows, q new steps, P steps before the codes, K codebooks, S condition tokens, D width, H heads, d width of a head,
V entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.models.inference.cross_kv import Across, Settled, attend
from v2m.models.inference.fast_linear import MANY, Precision, Product, carried, product
from v2m.models.inference.kv_cache import Heard, Past
from v2m.models.lm import LM, CrossAttention, Layer


class Norm:
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.epsilon = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.shape, self.weight, self.bias, self.epsilon)


class _Cross:
    def __init__(self, attention: CrossAttention, norm: nn.LayerNorm, precision: Precision, rows: int) -> None:
        weight = attention.query.weight.detach()
        self.heads = attention.heads
        self.norm = Norm(norm, carried(precision, weight.device))
        self.query = product(weight * (len(weight) // self.heads) ** -0.5, precision, rows)
        self.out = product(attention.out.weight.detach(), precision, rows)
        self.key_value = product(attention.key_value.weight.detach(), precision, MANY)

    def hear(self, heard: Heard, dtype: torch.dtype) -> Across:
        """Computed once; kept in `dtype`."""
        both = self.key_value(heard.tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        both = both.to(dtype).contiguous()  # in one piece: a product of a batch would copy it at each step
        there = heard.there
        mask = None if there is None else torch.zeros((), dtype=dtype, device=there.device).where(there, -torch.inf)
        return Across(heard.begin, heard.end, both[0], both[1], mask)

    def __call__(self, x: Tensor, across: Sequence[Across | Settled]) -> Tensor:
        """Rows (R, q, D) that all hear something → the same with it."""
        query = self.query(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found = [each(query[each.begin : each.end]) for each in across]
        joined = (torch.cat(found) if len(found) > 1 else found[0]).transpose(1, 2).flatten(2)
        return self.out.plus(joined, x)


class _Layer:
    def __init__(self, layer: Layer, precision: Precision, rows: int) -> None:
        weight = layer.self_attention.query_key_value.weight.detach().clone()
        dtype = carried(precision, weight.device)

        def ready(linear: nn.Linear) -> Product:
            return product(linear.weight.detach(), precision, rows)

        self.heads = layer.self_attention.heads
        width = weight.shape[1]
        weight[:width] *= (width // self.heads) ** -0.5  # once here instead of at each step
        self.norm_self, self.norm_feedforward = Norm(layer.norm_self, dtype), Norm(layer.norm_feedforward, dtype)
        self.query_key_value = product(weight, precision, rows)
        self.out = ready(layer.self_attention.out)
        self.expand, self.contract = ready(layer.expand), ready(layer.contract)
        crossing: Any = getattr(layer, "cross_attention", None)
        norm: Any = getattr(layer, "norm_cross", None)
        self.cross = None if crossing is None else _Cross(crossing, norm, precision, rows)

    def __call__(self, x: Tensor, past: Past, index: int, mask: Tensor, across: Sequence[Across | Settled]) -> Tensor:
        """(R, q, D) → (R, q, D)."""
        each = self.query_key_value(self.norm_self(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys, values = past.write(index, each[1:])
        x = self.out.plus(attend(each[0], keys, values, mask).transpose(1, 2).flatten(2), x)
        if across:
            assert self.cross is not None
            hearing = across[-1].end
            if hearing == x.shape[0]:
                x = self.cross(x, across)
            else:
                x = torch.cat([self.cross(x[:hearing], across), x[hearing:]])
        return self.contract.plus(self.expand.gelu(self.norm_feedforward(x)), x)


class Stack:
    """`lm` in a `precision`, on the device that it is on. Its weights are made ready for about `rows` rows."""

    def __init__(self, lm: LM, precision: Precision, rows: int = 2) -> None:
        config = lm.config
        layers: Any = lm.layers
        tables: Any = lm.embeddings
        heads: Any = lm.heads
        self.config, self.device = config, lm.norm.weight.device
        self.dtype = carried(precision, self.device)
        self.remembered = torch.float32 if precision == "fp32" else torch.bfloat16
        self.table = torch.cat([each.weight.detach() for each in tables]).to(self.dtype)  # (K · (V + 1), D)
        self._offsets = torch.arange(config.codebooks, device=self.device) * (config.entries + 1)
        self.layers = [_Layer(each, precision, rows) for each in layers]
        self.norm = Norm(lm.norm, self.dtype)
        self.heads = product(torch.cat([each.weight.detach() for each in heads]), precision, rows)

    def hear(self, heard: Sequence[Heard]) -> list[list[Across]]:
        """For each layer what of `heard` it attends to, computed once."""
        return [
            [layer.cross.hear(each, self.remembered) for each in heard] if layer.cross else [] for layer in self.layers
        ]

    def embed(self, codes: Tensor) -> Tensor:
        """(B, K, q) → (B, q, D), without positions."""
        return self.table[codes.transpose(1, 2) + self._offsets].sum(dim=2)

    def __call__(self, x: Tensor, past: Past, across: Sequence[Sequence[Across | Settled]]) -> Tensor:
        """(R, q, D) with positions → (R, q, D). The past has advanced by q."""
        new = x.shape[1]
        mask = past.mask(new)
        for index, layer in enumerate(self.layers):
            x = layer(x, past, index, mask, across[index])
        past.advance(new)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(R, D) → (R, K · V) float32."""
        return self.heads(self.norm(x)).float()
