"""The music LM's layers in their fast form, run with a KV cache: one forward of the decoder.

Why not `torch.compile`: on the CPU a step spends its time on reading weights and cache (71 % of it in bfloat16, see
`lm_decoding.py` in bench/README.md), which packed and 8-bit weights lower and no compiler does; and a growing cache
would be compiled again for each shape. On CUDA the cost is launching kernels, which `CapturedStep` takes away by
itself; `bench/lm_gpu.py` measures it beside transformers under `torch.compile(mode="reduce-overhead")`.

R rows, q new steps, e positions attended to, K codebooks, S condition tokens, D model dimension, H heads, V codebook
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from v2m.models.inference import cpu_kernels
from v2m.models.inference.fast_linear import MAX_GEMV_ROWS, CastLayerNorm, FastLinear, Precision
from v2m.models.inference.kernel_choice import Kernel, choose_kernel
from v2m.models.inference.kv_cache import AnyCrossKV, CrossAttentionInput, CrossKV, KVCache
from v2m.models.lm import LM, CrossAttention, TransformerLayer


class _Steps(NamedTuple):
    """The new steps of one forward: `positions` (q,), and the `mask` that is added to their scores."""

    cache: KVCache
    positions: Tensor
    mask: Tensor | None


class _CrossAttention:
    def __init__(self, module: CrossAttention, norm: nn.LayerNorm, kernel: Kernel, rows: int) -> None:
        weight = module.query.weight.detach()
        self.num_heads = module.num_heads
        self.norm = CastLayerNorm(norm, kernel.dtype)
        self.query = kernel.make(weight * (len(weight) // self.num_heads) ** -0.5, rows)
        self.out = kernel.make(module.out.weight.detach(), rows)
        self.key_value = kernel.make(module.key_value.weight.detach(), MAX_GEMV_ROWS)

    def project_condition(self, inputs: CrossAttentionInput, dtype: torch.dtype) -> CrossKV:
        """Return keys and values in `dtype`."""
        key_value = self.key_value(inputs.tokens).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        key_value = key_value.to(dtype).contiguous()  # a batched product would copy strided operands at each step
        mask = None
        if inputs.mask is not None:
            mask = torch.zeros((), dtype=dtype, device=inputs.mask.device).where(inputs.mask, -torch.inf)
        return CrossKV(inputs.start, inputs.end, key_value[0], key_value[1], mask)

    def __call__(self, x: Tensor, cross_kv: Sequence[AnyCrossKV]) -> Tensor:
        """(R, q, D) of rows that all have a condition → the same."""
        query = self.query(x, self.norm).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        parts = [kv(query[kv.start : kv.end]) for kv in cross_kv]
        out = (torch.cat(parts) if len(parts) > 1 else parts[0]).transpose(1, 2).flatten(2)
        return self.out.plus(out, x)


class _Layer:
    def __init__(self, layer: TransformerLayer, kernel: Kernel, rows: int) -> None:
        weight = layer.self_attention.query_key_value.weight.detach().clone()

        def linear(module: nn.Linear) -> FastLinear:
            return kernel.make(module.weight.detach(), rows)

        self.num_heads = layer.self_attention.num_heads
        dim = weight.shape[1]
        weight[:dim] *= (dim // self.num_heads) ** -0.5  # the queries' 1/√d, once here instead of at each step
        self.norm_self = CastLayerNorm(layer.norm_self, kernel.dtype)
        self.norm_feedforward = CastLayerNorm(layer.norm_feedforward, kernel.dtype)
        self.query_key_value = kernel.make(weight, rows)
        self.out = linear(layer.self_attention.out)
        self.expand, self.contract = linear(layer.expand), linear(layer.contract)
        self.cross: _CrossAttention | None = None
        if layer.cross_attention is not None and layer.norm_cross is not None:
            self.cross = _CrossAttention(layer.cross_attention, layer.norm_cross, kernel, rows)

    def __call__(self, x: Tensor, index: int, steps: _Steps, cross_kv: Sequence[AnyCrossKV]) -> Tensor:
        """(R, q, D) → (R, q, D)."""
        qkv = self.query_key_value(x, self.norm_self)
        x = self.out.plus(steps.cache.attend(index, qkv, self.num_heads, steps.positions, steps.mask), x)
        if cross_kv:
            assert self.cross is not None
            crossing = cross_kv[-1].end  # rows without a condition stand behind those that have one
            crossed = self.cross(x[:crossing], cross_kv)
            x = crossed if crossing == x.shape[0] else torch.cat([crossed, x[crossing:]])
        return self.contract.plus(self.expand.gelu(x, self.norm_feedforward), x)


class InferenceLM:
    """`lm` in a `precision`, on the device that it is on, its weights prepared for about `rows` rows."""

    def __init__(self, lm: LM, precision: Precision, rows: int = 2) -> None:
        config = lm.config
        layers, tables, heads = (list[Any](modules) for modules in (lm.layers, lm.embeddings, lm.heads))
        self.config, self.device = config, lm.norm.weight.device
        kernel = choose_kernel(precision, lm, self.device)
        self.kernel, self.dtype = kernel.name, kernel.dtype
        # what is rounded to 8 bits or less has its cache in 8 bits, too, where a kernel attends over it in this type
        self.cache_kernels = cpu_kernels.load_kernels() if precision in {"int8", "int4"} else None
        has_whole_blocks = config.dim // config.num_heads % cpu_kernels.POSITIONS == 0
        if self.device.type != "cpu" or self.dtype != torch.float32 or not has_whole_blocks:
            self.cache_kernels = None
        self.cache_dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self.embeddings = torch.cat([table.weight.detach() for table in tables]).to(self.dtype)  # (K · (V + 1), D)
        self._offsets = torch.arange(config.num_codebooks, device=self.device) * (config.codebook_size + 1)
        self.layers = [_Layer(layer, kernel, rows) for layer in layers]
        self.norm = CastLayerNorm(lm.norm, self.dtype)
        self.heads = kernel.make(torch.cat([head.weight.detach() for head in heads]), rows)

    def project_condition(self, inputs: Sequence[CrossAttentionInput]) -> list[list[CrossKV]]:
        """Return for each layer the keys and values of all conditions, computed once."""
        layers, dtype = self.layers, self.cache_dtype
        return [[x.cross.project_condition(part, dtype) for part in inputs] if x.cross else [] for x in layers]

    def embed(self, codes: Tensor) -> Tensor:
        """(B, K, q) → (B, q, D), without positions."""
        return self.embeddings[codes.transpose(1, 2) + self._offsets].sum(dim=2)

    def __call__(self, x: Tensor, cache: KVCache, cross_kv: Sequence[Sequence[AnyCrossKV]]) -> Tensor:
        """(R, q, D) with positions → (R, q, D). The cache has advanced by q."""
        new = x.shape[1]
        positions = cache.next_positions(new)
        steps = _Steps(cache, positions, cache.attention_mask(positions))
        for index, layer in enumerate(self.layers):
            x = layer(x, index, steps, cross_kv[index])
        cache.advance(new)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(R, D) → (R, K · V) float32."""
        return self.heads(x, self.norm).float()
