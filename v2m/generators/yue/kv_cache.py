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

ALIGNED = 8  # a mask whose rows are no multiple of this long is copied by CUDA's kernels in each layer


class Slab:
    """Memory for `rows` sequences of at most `length` positions.

    A forward of q tokens asks for `places(q)`, gives each layer's keys and values to `update`, and ends by `advance`.
    `rows` narrows the next forwards to some of the sequences (a slice: a view, never a copy). `pad` says how many
    positions at the start of each row hold nothing, where sequences of unequal lengths end side by side.
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
        self.filled = 0  # positions, while the slab is growing; setting it lower forgets what came after
        self.rows = slice(0, rows)
        self.pad = torch.zeros(rows, dtype=torch.long, device=device)  # (R,)
        self.at: Tensor | None = None  # (1,) what `filled` is while the slab is fixed, on the device
        self._counter = torch.zeros(1, dtype=torch.long, device=device)
        self._index = torch.arange(length, device=device)
        self._open = torch.zeros(rows, 1, 1, length, dtype=dtype, device=device)  # −inf in the pad
        shape = (rows, config.num_key_value_heads, length, _head_width(config))
        layers = range(config.num_hidden_layers)
        self.keys, self.values = (  # zeros: what is masked must still be a number
            [torch.zeros(shape, device=device, dtype=dtype) for _ in layers] for _ in range(2)
        )
        for row, count in enumerate(pad):
            self.hide(row, count)

    def hide(self, row: int, count: int) -> None:
        """From here on the first `count` positions of `row` hold nothing: its pad."""
        self.pad[row] = count
        self._open[row, ..., :count] = -torch.inf
        self._open[row, ..., count:] = 0.0

    def fix(self) -> None:
        """From here on the forwards attend over all `length` positions and count on the device; `filled` stands still.

        Whoever then steps beyond `length` gets an error from the device at best: the caller counts.
        """
        self.at = self._counter.fill_(self.filled)  # one tensor for good: captured steps read and raise it

    def grow(self, filled: int) -> None:
        """The opposite of `fix`: `filled` is what the caller has counted."""
        self.at, self.filled = None, filled

    def places(self, new: int) -> Tensor:
        """(q,) where the next `new` tokens go."""
        if self.at is not None:
            return self.at + self._index[:new]
        end = self.filled + new
        assert end <= self.length, f"{end} positions in a slab of {self.length}"
        return self._index[self.filled : end]

    def positions(self, places: Tensor) -> Tensor:
        """(R, q) position ids of the tokens at `places`: each row counts from the end of its pad; 0 in the pad."""
        return (places - self.pad[self.rows, None]).clamp_(min=0)

    def mask(self, places: Tensor) -> Tensor:
        """(R, 1, q, e), 0 or −inf, to be added to the scores of the tokens at `places`.

        A token sees itself and what came before it in its row, never the pad; a pad position sees itself, since of
        nothing at all the softmax would be no number, which then spreads through a weight of 0.
        """
        seen = self._index if self.at is not None else self._index[: self.filled + len(places)]
        mask = self._open[self.rows, :, :, : len(seen)]
        if self.at is None and len(places) == 1:
            return mask
        here = places[:, None]
        return mask.masked_fill(seen > here, -torch.inf).masked_fill_(seen == here, 0.0)

    def update(self, layer: int, key: Tensor, value: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Writes a layer's (R, H, q, D) at `places` → its keys and values (R, H, e, D), views."""
        keys, values = self.keys[layer][self.rows], self.values[layer][self.rows]
        if self.at is not None:
            return keys.index_copy_(2, places, key), values.index_copy_(2, places, value)
        end = self.filled + key.shape[2]
        keys[:, :, self.filled : end] = key
        values[:, :, self.filled : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, new: int) -> None:
        """After a forward of `new` tokens."""
        if self.at is None:
            self.filled += new
        else:
            self.at += new


def aligned(length: int) -> int:
    """The least length from `length` on that suits CUDA's kernels."""
    return -(-length // ALIGNED) * ALIGNED


def row_bytes(config: PretrainedConfig, length: int, dtype: torch.dtype) -> int:
    """Bytes that one row of `length` positions takes."""
    width = config.num_key_value_heads * _head_width(config)
    return 2 * config.num_hidden_layers * width * length * dtype.itemsize


def _head_width(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
