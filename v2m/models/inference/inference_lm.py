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

from v2m.models.inference.cross_kv import CrossKV, PackedCrossKV, attention
from v2m.models.inference.fast_linear import MAX_GEMV_ROWS, FastLinear, Precision, activation_dtype, make_linear
from v2m.models.inference.kv_cache import CrossAttentionInput, KVCache
from v2m.models.lm import LM, CrossAttention, TransformerLayer


class CastLayerNorm:
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.epsilon = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.shape, self.weight, self.bias, self.epsilon)


class _CrossAttention:
    def __init__(self, attention: CrossAttention, norm: nn.LayerNorm, precision: Precision, rows: int) -> None:
        weight = attention.query.weight.detach()
        self.heads = attention.num_heads
        self.norm = CastLayerNorm(norm, activation_dtype(precision, weight.device))
        self.query = make_linear(weight * (len(weight) // self.heads) ** -0.5, precision, rows)
        self.out = make_linear(attention.out.weight.detach(), precision, rows)
        self.key_value = make_linear(attention.key_value.weight.detach(), precision, MAX_GEMV_ROWS)

    def project_condition(self, heard: CrossAttentionInput, dtype: torch.dtype) -> CrossKV:
        """Computed once; kept in `dtype`."""
        both = self.key_value(heard.tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        both = both.to(dtype).contiguous()  # in one piece: a product of a batch would copy it at each step
        there = heard.mask
        mask = None if there is None else torch.zeros((), dtype=dtype, device=there.device).where(there, -torch.inf)
        return CrossKV(heard.start, heard.end, both[0], both[1], mask)

    def __call__(self, x: Tensor, across: Sequence[CrossKV | PackedCrossKV]) -> Tensor:
        """Rows (R, q, D) that all hear something → the same with it."""
        query = self.query(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found = [each(query[each.start : each.end]) for each in across]
        joined = (torch.cat(found) if len(found) > 1 else found[0]).transpose(1, 2).flatten(2)
        return self.out.plus(joined, x)


class _Layer:
    def __init__(self, layer: TransformerLayer, precision: Precision, rows: int) -> None:
        weight = layer.self_attention.query_key_value.weight.detach().clone()
        dtype = activation_dtype(precision, weight.device)

        def ready(linear: nn.Linear) -> FastLinear:
            return make_linear(linear.weight.detach(), precision, rows)

        self.heads = layer.self_attention.num_heads
        width = weight.shape[1]
        weight[:width] *= (width // self.heads) ** -0.5  # once here instead of at each step
        self.norm_self, self.norm_feedforward = (
            CastLayerNorm(layer.norm_self, dtype),
            CastLayerNorm(layer.norm_feedforward, dtype),
        )
        self.query_key_value = make_linear(weight, precision, rows)
        self.out = ready(layer.self_attention.out)
        self.expand, self.contract = ready(layer.expand), ready(layer.contract)
        crossing: Any = getattr(layer, "cross_attention", None)
        norm: Any = getattr(layer, "norm_cross", None)
        self.cross = None if crossing is None else _CrossAttention(crossing, norm, precision, rows)

    def __call__(
        self, x: Tensor, cache: KVCache, index: int, mask: Tensor, cross_kv: Sequence[CrossKV | PackedCrossKV]
    ) -> Tensor:
        """(R, q, D) → (R, q, D)."""
        each = self.query_key_value(self.norm_self(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys, values = cache.update(index, each[1:])
        x = self.out.plus(attention(each[0], keys, values, mask).transpose(1, 2).flatten(2), x)
        if cross_kv:
            assert self.cross is not None
            hearing = cross_kv[-1].end
            if hearing == x.shape[0]:
                x = self.cross(x, cross_kv)
            else:
                x = torch.cat([self.cross(x[:hearing], cross_kv), x[hearing:]])
        return self.contract.plus(self.expand.gelu(self.norm_feedforward(x)), x)


class InferenceLM:
    """`lm` in a `precision`, on the device that it is on. Its weights are made ready for about `rows` rows."""

    def __init__(self, lm: LM, precision: Precision, rows: int = 2) -> None:
        config = lm.config
        layers: Any = lm.layers
        tables: Any = lm.embeddings
        heads: Any = lm.heads
        self.config, self.device = config, lm.norm.weight.device
        self.dtype = activation_dtype(precision, self.device)
        self.cache_dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self.embeddings = torch.cat([each.weight.detach() for each in tables]).to(self.dtype)  # (K · (V + 1), D)
        self._offsets = torch.arange(config.num_codebooks, device=self.device) * (config.codebook_size + 1)
        self.layers = [_Layer(each, precision, rows) for each in layers]
        self.norm = CastLayerNorm(lm.norm, self.dtype)
        self.heads = make_linear(torch.cat([each.weight.detach() for each in heads]), precision, rows)

    def project_condition(self, inputs: Sequence[CrossAttentionInput]) -> list[list[CrossKV]]:
        """For each layer what of `heard` it attends to, computed once."""
        return [
            [layer.cross.project_condition(each, self.cache_dtype) for each in inputs] if layer.cross else []
            for layer in self.layers
        ]

    def embed(self, codes: Tensor) -> Tensor:
        """(B, K, q) → (B, q, D), without positions."""
        return self.embeddings[codes.transpose(1, 2) + self._offsets].sum(dim=2)

    def __call__(self, x: Tensor, cache: KVCache, cross_kv: Sequence[Sequence[CrossKV | PackedCrossKV]]) -> Tensor:
        """(R, q, D) with positions → (R, q, D). The past has advanced by q."""
        new = x.shape[1]
        mask = cache.mask(new)
        for index, layer in enumerate(self.layers):
            x = layer(x, cache, index, mask, cross_kv[index])
        cache.advance(new)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(R, D) → (R, K · V) float32."""
        return self.heads(self.norm(x)).float()
