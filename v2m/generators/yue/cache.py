"""The key/value memory of a transformers decoder, laid out once and filled in place.

transformers' own caches either concatenate at each step (the whole memory is copied once a token) or attend over their
full length. This one writes into place and hands the attention a view of what is filled; or, once it is `fixed`, all of
itself, so that every shape stays the same and a step can be captured in a CUDA graph.

R rows (sequences side by side), H key/value heads, L positions, D head width, q new tokens, e positions attended to.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        rows, new = self.slab.rows, key_states.shape[-2]
        assert self.keys is not None
        assert self.values is not None
        keys, values = self.keys[rows], self.values[rows]
        if self.slab.at is not None:
            places = self.slab.places(new)
            keys.index_copy_(2, places, key_states)
            values.index_copy_(2, places, value_states)
            return keys, values
        begin, end = self.slab.filled, self.slab.end(new)
        keys[:, :, begin:end] = key_states
        values[:, :, begin:end] = value_states
        return keys[:, :, :end], values[:, :, :end]

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

    After each forward of q tokens the caller adds q to `filled` by `advance`; setting `filled` lower forgets what came
    after. `rows` narrows the next forwards to some of the sequences (a slice: a view, never a copy). `pad` says how
    many positions at the start of each row hold nothing, where sequences of unequal lengths end side by side.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        rows: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        pad: Sequence[int] = (),
    ) -> None:
        self.length = length
        self.filled = 0
        self.rows = slice(0, rows)
        self.pad = torch.tensor(pad or [0] * rows, device=device)  # (R,)
        self.at: Tensor | None = None  # (1,) what `filled` is once the slab is fixed, on the device
        self._places: Tensor | None = None
        self._index = torch.arange(length, device=device)
        hidden = self._index < self.pad[:, None, None, None]
        self._open = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
        shape = (rows, config.num_key_value_heads, length, _head_width(config))
        super().__init__(layers=[_Layer(self, shape, device, dtype) for _ in range(config.num_hidden_layers)])

    def fix(self) -> None:
        """From here on the forwards attend over all `length` positions and count on the device; `filled` stands still.

        Whoever then steps beyond `length` gets an error from the device at best: the caller counts.
        """
        self.at = torch.full((1,), self.filled, dtype=torch.long, device=self._index.device)

    def advance(self, new: int) -> None:
        """After a forward of `new` tokens."""
        if self.at is None:
            self.filled += new
        else:
            self.at += new
            self._places = None

    def end(self, new: int) -> int:
        """Positions filled after the next `new` tokens, while the slab is growing."""
        end = self.filled + new
        assert end <= self.length, f"{end} positions in a slab of {self.length}"
        return end

    def places(self, new: int) -> Tensor:
        """(q,) where the next `new` tokens go."""
        if self.at is None:
            return self._index[self.filled : self.end(new)]
        if self._places is None or len(self._places) != new:  # every layer asks
            self._places = self.at + self._index[:new]
        return self._places

    def positions(self, new: int) -> Tensor:
        """(R, q) position ids of the next `new` tokens: each row counts from the end of its pad; 0 in the pad."""
        return (self.places(new) - self.pad[self.rows, None]).clamp_(min=0)

    def mask(self, new: int) -> Tensor:
        """(R, 1, q, e), 0 or −inf, to be added to the scores of the next `new` tokens.

        A token sees itself and what came before it in its row, never the pad; a pad position sees itself, since of
        nothing at all the softmax would be no number, which then spreads through a weight of 0.
        """
        if self.at is None and new == 1:
            return self._open[self.rows, :, :, : self.end(1)]
        places = self.places(new)[:, None]
        there = self._index if self.at is not None else self._index[: self.end(new)]
        mask = self._open[self.rows, :, :, : len(there)].masked_fill(there > places, -torch.inf)
        return mask.masked_fill_(there == places, 0.0)


def row_bytes(config: PretrainedConfig, length: int, dtype: torch.dtype) -> int:
    """Bytes that one row of `length` positions takes."""
    width = config.num_key_value_heads * _head_width(config)
    return 2 * config.num_hidden_layers * width * length * dtype.itemsize


def _head_width(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
