"""A decoding step in one call of the CPU kernels.

A step of MusicGen-small's size takes 200 calls of kernels of 20 to 150 microseconds each, and Python takes ten and more
between two of them, during which the other cores wait. Here all layers of a step are one call.

R rows, D model dimension, e positions attended to, K codebooks, V codebook size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from v2m.models.inference.cpu_kernels import CacheStruct, CPUKernels, NormStruct, WeightStruct, pointer_to
from v2m.models.inference.fast_linear import FastLinear, NativeLinear
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.inference.kv_cache import AnyCrossKV, KVCache, QuantizedCrossKV


class _CrossStruct(ctypes.Structure):
    _fields_ = [
        ("cache", CacheStruct),
        ("start", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
    ]


class _LayerStruct(ctypes.Structure):
    _fields_ = [
        *((name, NormStruct) for name in ("norm_self", "norm_cross", "norm_feedforward")),
        *((name, WeightStruct) for name in ("query_key_value", "out", "cross_query", "cross_out")),
        *((name, WeightStruct) for name in ("expand", "contract")),
        ("cache", CacheStruct),
        ("cross", ctypes.POINTER(_CrossStruct)),
        ("num_cross", ctypes.c_int64),
    ]


class NativeStep:
    """All layers of `lm` for one step at a time, with its caches."""

    def __init__(
        self, lm: InferenceLM, kernels: CPUKernels, cache: KVCache, cross_kv: Sequence[Sequence[QuantizedCrossKV]]
    ) -> None:
        self._kernels, self._lm, self._cache = kernels, lm, cache
        self._cross_kv, self._cross_structs = cross_kv, [_cross_structs(parts) for parts in cross_kv]  # pointed to
        self._layers = (_LayerStruct * len(lm.layers))()
        parts_of_layers = zip(self._layers, lm.layers, cache.quantized, self._cross_structs, strict=True)
        for struct, layer, quantized, cross in parts_of_layers:
            struct.norm_self = layer.norm_self.native.struct
            struct.norm_feedforward = layer.norm_feedforward.native.struct
            struct.cache = quantized.struct
            for name in ("query_key_value", "out", "expand", "contract"):
                setattr(struct, name, _weight(getattr(layer, name)))
            if len(cross):
                assert layer.cross is not None
                struct.norm_cross = layer.cross.norm.native.struct
                struct.cross_query, struct.cross_out = _weight(layer.cross.query), _weight(layer.cross.out)
                struct.cross, struct.num_cross = cross, len(cross)

    def __call__(self, x: Tensor) -> Tensor:
        """(R, 1, D) with positions → logits (R, K · V). The cache has advanced by 1."""
        cache, lm, heads = self._cache, self._lm, self._lm.heads
        assert isinstance(heads, NativeLinear)
        mask = cache.attention_mask(cache.next_positions(1))
        x, logits = x.clone(memory_format=torch.contiguous_format), torch.empty(len(x), heads.weight.shape[0])
        self._kernels.library.decode_step(
            self._layers, len(self._layers), ctypes.byref(lm.norm.native.struct), ctypes.byref(heads.weight.struct),
            x.data_ptr(), len(x), pointer_to(mask), cache.seq_length + 1, logits.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        cache.advance(1)
        return logits


def make_step(lm: InferenceLM, cache: KVCache, cross_kv: Sequence[Sequence[AnyCrossKV]]) -> NativeStep | None:
    """Return the step of a quantized cache; None where a part of it does not run by our kernels."""
    kernels = lm.cache_kernels
    parts = [[part for part in layer if isinstance(part, QuantizedCrossKV)] for layer in cross_kv]
    if kernels is None or not lm.kernel.startswith("native") or list(map(len, parts)) != list(map(len, cross_kv)):
        return None
    return NativeStep(lm, kernels, cache, parts)


def _weight(layer: FastLinear) -> WeightStruct:
    assert isinstance(layer, NativeLinear)
    return layer.weight.struct


def _cross_structs(parts: Sequence[QuantizedCrossKV]) -> ctypes.Array[_CrossStruct]:
    structs = [_CrossStruct(kv.cache.struct, kv.start, kv.end, kv.length, pointer_to(kv.mask)) for kv in parts]
    return (_CrossStruct * len(parts))(*structs)
