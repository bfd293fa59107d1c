"""The key/value memory of a transformers decoder, laid out once and filled in place.

transformers' own caches either concatenate at each step (the whole memory is copied once a token) or attend over their
full length. This one writes into place and hands the attention a view of what is filled.

R rows (sequences side by side), H key/value heads, L positions, D head width, q new tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class _Layer(CacheLayerMixin):
    """One layer's keys and values (R, H, L, D); the slab says which rows and which positions a forward fills."""

    def __init__(self, slab: Slab, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.slab = slab
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # zeros: what is masked must still be a number
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        rows, begin = self.slab.rows, self.slab.filled
        end = begin + key_states.shape[-2]
        assert self.keys is not None
        assert self.values is not None
        self.keys[rows, :, begin:end] = key_states
        self.values[rows, :, begin:end] = value_states
        return self.keys[rows, :, :end], self.values[rows, :, :end]

    def get_seq_length(self) -> int:
        return self.slab.filled

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slab.filled + query_length, 0

    def get_max_length(self) -> int:
        return self.slab.length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:  # noqa: ARG002 - as its base
        raise AssertionError("a slab is laid out when it is made")


class Slab(Cache):
    """Memory for `rows` sequences of at most `length` positions.

    After each forward of q tokens the caller adds q to `filled`; setting it lower forgets what came after. `rows`
    narrows the next forwards to some of the sequences (a slice: a view, never a copy).
    """

    def __init__(
        self, config: PretrainedConfig, rows: int, length: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        heads = config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.length = length
        self.filled = 0
        self.rows = slice(0, rows)
        shape = (rows, heads, length, width)
        super().__init__(layers=[_Layer(self, shape, device, dtype) for _ in range(config.num_hidden_layers)])
