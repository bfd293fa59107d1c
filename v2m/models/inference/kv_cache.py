"""KV cache of autoregressive decoding, and cross-attention's keys and values; for MusicGen and YuE.

transformers' own caches either copy the whole cache once a token, or attend over their full length. This one hands the
attention views of what is reserved, and can keep every shape for a CUDA graph. The keys and values of cross-attention
do not change from step to step: they are computed once.

R rows (sequences side by side), H key/value heads, h heads that are multiplied at once, L positions, d dimension of a
head, q new steps, e positions attended to, P positions of a prefix, S tokens of a condition, D model dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from v2m.core import compat
from v2m.models.conditioning import Condition
from v2m.models.inference.cpu_kernels import POSITIONS, CPUKernels, QuantizedKV
from v2m.models.inference.fast_linear import OneDNNLinear

PREFILL_STEPS = 1024  # steps of a prompt in one forward: bounds the memory of their attention however long it is
RESERVE_STEP = 64  # positions that a growing cache reserves at a time
HEADS_PER_PRODUCT = 8  # h
MIN_PACKED_TOKENS = 256  # tokens from which `PackedCrossKV` is the faster
ALIGNMENT = 8  # a mask whose rows are no multiple of this long is copied by CUDA's kernels in each layer


class KVCache:
    """Keys and values of `num_layers` layers, each of `shape` = (R, H, L, d).

    A forward of q steps asks for `next_positions(q)`, `position_ids` and `attention_mask`, gives each layer's keys and
    values to `update`, and ends with `advance(q)`:

        positions   0 1 2 3 4 5 6 7 8 9 …
        row 0       x x x x x x x n . .    x cached, n new (q = 1), . reserved and masked
        row 1       _ _ _ x x x x n . .    _ its padding (3): masked, and its position ids count from behind it

    A cache grows by `RESERVE_STEP` positions at a time: a single step attends to all reserved positions, the unwritten
    ones masked, since the CPU's libraries compile anew for each shape and copy operands that are not contiguous;
    several steps attend to what is written. An `exact` one reserves all of L at once, and every step attends to what is
    written. In a static one (`freeze`) every step attends to the first e positions, and the position is counted on the
    device, so that a step can be captured. A quantized one (`quantize`) holds 8-bit numbers, takes one new step at a
    time, and attends to what is written.

    `padding` are positions at the start of each row that hold nothing, where unequal sequences end side by side;
    `prefix_mask` (R, P) bool, which of the first P positions hold something; `preallocate` reserves all of L at once.
    """

    def __init__(
        self,
        num_layers: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        padding: Sequence[int] = (),
        prefix_mask: Tensor | None = None,
        preallocate: bool = False,
        exact: bool = False,
    ) -> None:
        rows, heads, length, width = shape
        self.max_length, self.exact = length, exact
        self.seq_length = 0  # cached positions, while not static; a lower value forgets what came after
        self.position = torch.zeros(1, dtype=torch.long, device=device)  # the same, always up to date on the device
        self.attended_length: int | None = None  # e while static
        self.rows = slice(0, rows)  # narrowed, the next forwards are of these rows alone (views, no copies)
        reserved = length if preallocate or exact else 0
        size = (2, rows, heads, reserved, width)  # zeros: what is masked must still be finite
        self.buffers = [torch.zeros(size, dtype=dtype, device=device) for _ in range(num_layers)]
        self.padding = torch.zeros(rows, dtype=torch.long, device=device)  # (R,)
        self._dtype, self._width = dtype, width
        self._kernels: CPUKernels | None = None
        self.quantized: list[QuantizedKV] = []  # of each layer, once quantized
        self._index = torch.arange(length, device=device)
        self._valid = None if not exact else torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device)
        for row, count in enumerate(padding):
            self.set_padding(row, count)
        if prefix_mask is not None and not bool(prefix_mask.all()):
            self._validity()[:, 0, 0, : prefix_mask.shape[1]] = prefix_mask

    def set_padding(self, row: int, count: int) -> None:
        """Declare the first `count` positions of `row` empty, and all behind them not."""
        self.padding[row] = count
        if count or self._valid is not None:
            self._validity()[row, ..., :count] = False
            self._validity()[row, ..., count:] = True

    def freeze(self, attended_length: int | None = None) -> None:
        """Make the cache static: from now on steps attend to `attended_length` positions (None: all).

        `seq_length` stands still. A step beyond the length is an error of the device at best: the caller counts.
        """
        self.attended_length = self.max_length if attended_length is None else attended_length

    def unfreeze(self, seq_length: int) -> None:
        """End `freeze`; `seq_length` is what the caller has counted."""
        self.attended_length, self.seq_length = None, seq_length
        self.position.fill_(seq_length)  # in place: captured steps read this very tensor

    def quantize(self, kernels: CPUKernels) -> None:
        """Round all keys and values to 8 bits, which `kernels` attend over from now on."""
        rows, heads = self.buffers[0].shape[1:3]
        for layer, buffer in enumerate(self.buffers):  # one after the other: never two copies of everything
            quantized = QuantizedKV(rows, heads, self.max_length, self._width)
            if self.seq_length:
                key, value = buffer[:, :, :, : self.seq_length].float().contiguous().unbind()
                kernels.write_cache(quantized, key, value, 0)
            self.quantized.append(quantized)
            self.buffers[layer] = buffer[:, :, :, :0].clone()
        self._kernels = kernels

    def next_positions(self, new: int) -> Tensor:
        """Return the (q,) positions of the next `new` steps, and reserve them."""
        if self._kernels is not None:
            assert new == 1, f"{new} steps at once in a quantized cache"
        elif self.attended_length is None:
            end = self.seq_length + new
            assert end <= self.max_length, f"{end} positions in a cache of {self.max_length}"
            self._reserve(end)
        return self.position + self._index[:new]

    def position_ids(self, positions: Tensor) -> Tensor:
        """(R, q) ids of the steps at `positions`: each row counts from behind its padding; 0 in the padding."""
        return (positions - self.padding[self.rows, None]).clamp_(min=0)

    def attention_mask(self, positions: Tensor) -> Tensor | None:
        """(R or 1, 1, q, e), 0 or −inf, to be added to the scores of the steps at `positions`.

        Of a quantized cache it is (R, e) float32, or None where nothing is masked.
        A step attends to itself and to what came before it in its row, never to padding. In the padding a step
        attends to itself: a softmax over nothing is NaN, which spreads through weights of 0.
        """
        if self._kernels is not None and self._valid is None:
            return None
        index = self._index[: self._attended(len(positions))]
        steps = positions[:, None]
        visible = (index <= steps)[None, None]
        if self._valid is not None:
            visible = (visible & self._valid[self.rows, ..., : len(index)]) | (index == steps)
        mask = torch.zeros((), dtype=self._dtype, device=visible.device).where(visible, -torch.inf)
        return mask if self._kernels is None else mask[:, 0, 0].expand(len(self.padding), -1).float().contiguous()

    def update(self, layer: int, key: Tensor, value: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new (R, H, q, d); return all that is attended to, (R, H, e, d) each, views."""
        keys, values = self.buffers[layer][:, self.rows].unbind()
        new = key.shape[2]
        if self.attended_length is not None:
            keys.index_copy_(2, positions, key.to(keys.dtype))
            values.index_copy_(2, positions, value.to(values.dtype))
        else:
            end = self.seq_length + new
            keys[:, :, self.seq_length : end] = key
            values[:, :, self.seq_length : end] = value
        return keys[:, :, : self._attended(new)], values[:, :, : self._attended(new)]

    def attend(self, layer: int, qkv: Tensor, num_heads: int, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Write the new keys and values of a layer, and attend with its queries, already divided by √d.

        `qkv` (R, q, 3 · D) holds all three, each of `num_heads` heads: (R, q, D).
        """
        if self._kernels is not None:
            query, key, value = qkv.view(len(qkv), 3, num_heads, -1).unbind(1)
            out = self._kernels.attention(
                query, self.quantized[layer], self.seq_length + 1, new=(key, value), mask=mask
            )
            return out.view(len(qkv), 1, -1)
        query, key, value = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        keys, values = self.update(layer, key, value, positions)
        return attention(query, keys, values, mask).transpose(1, 2).flatten(2)

    def advance(self, new: int) -> None:
        self.position += new
        if self.attended_length is None:
            self.seq_length += new

    def _validity(self) -> Tensor:
        if self._valid is None:
            rows, length = len(self.padding), self.max_length
            self._valid = torch.ones(rows, 1, 1, length, dtype=torch.bool, device=self.padding.device)
        return self._valid

    def _reserve(self, end: int) -> None:
        reserved = self.buffers[0].shape[3]
        if end > reserved:
            added = min(-(-end // RESERVE_STEP) * RESERVE_STEP, self.max_length) - reserved
            for layer, buffer in enumerate(self.buffers):  # one after the other: never two copies of everything
                self.buffers[layer] = functional.pad(buffer, (0, 0, 0, added))

    def _attended(self, new: int) -> int:
        if self.attended_length is not None:
            return self.attended_length
        if self._kernels is not None:
            return self.seq_length + new
        return self.buffers[0].shape[3] if new == 1 and not self.exact else self.seq_length + new


def aligned_length(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class CrossAttentionInput:
    """Condition of the rows `start` to `end`."""

    start: int
    end: int
    tokens: Tensor  # (R, S, D)
    mask: Tensor | None  # (R, 1, 1, S) bool where not all are valid


def pack_masked_tokens(condition: Condition, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Return these rows of a condition, valid tokens first and only as long as the fullest row needs.

    Cross-attention has no order, so that (R, S, D) tokens mean the same anywhere. The mask (R, 1, 1, S) is None if all
    rows are full.
    """
    tokens, mask = condition.tokens[list(rows)], condition.mask[list(rows)]
    counts = mask.sum(dim=1)
    packed_mask = torch.arange(mask.shape[1], device=mask.device) < counts[:, None]
    if not torch.equal(packed_mask, mask):
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        tokens = tokens.gather(1, order[..., None].expand_as(tokens))
    longest = int(counts.max())
    full = bool((counts == longest).all())
    return tokens[:, :longest], None if full else packed_mask[:, None, None, :longest]


class CrossKV(NamedTuple):
    """Keys and values that the rows `start` to `end` attend to in one layer."""

    start: int
    end: int
    keys: Tensor  # (R, H, S, d)
    values: Tensor
    mask: Tensor | None  # (R, 1, 1, S), added to the scores

    def __call__(self, query: Tensor) -> Tensor:
        """Attend with queries (R, H, q, d), already divided by √d; the same shape out."""
        return attention(query, self.keys, self.values, self.mask)

    def pack(self, kernels: CPUKernels | None = None) -> CrossKV | PackedCrossKV | QuantizedCrossKV:
        """Return the form that answers single steps fastest: with `kernels` one in 8 bits."""
        if kernels is not None and self.keys.shape[3] % POSITIONS == 0:
            return QuantizedCrossKV(self, kernels)
        bf16_on_cpu = self.keys.device.type == "cpu" and self.keys.dtype == torch.bfloat16
        is_long = self.keys.shape[2] >= MIN_PACKED_TOKENS
        return PackedCrossKV(self) if bf16_on_cpu and is_long and compat.onednn_supports(torch.bfloat16) else self


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
        keys, values = ([part for row in rows for part in row.split(h)] for rows in (cross_kv.keys, cross_kv.values))
        self._keys = [OneDNNLinear(part.transpose(0, 1).flatten(1), h) for part in keys]
        self._values = [OneDNNLinear(part.transpose(1, 2).flatten(0, 1), h) for part in values]

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


class QuantizedCrossKV:
    """A `CrossKV` in 8 bits for one step at a time."""

    def __init__(self, cross_kv: CrossKV, kernels: CPUKernels) -> None:
        rows, heads, length, width = cross_kv.keys.shape
        self.start, self.end, self.length, self._kernels = cross_kv.start, cross_kv.end, length, kernels
        self.mask = None if cross_kv.mask is None else cross_kv.mask[:, 0, 0].float().contiguous()
        self.cache = QuantizedKV(rows, heads, length, width)
        keys, values = (part.float().contiguous() for part in (cross_kv.keys, cross_kv.values))
        kernels.write_cache(self.cache, keys, values, 0)

    def __call__(self, query: Tensor) -> Tensor:
        """Attend with queries (R, H, 1, d), already divided by √d; the same shape out."""
        return self._kernels.attention(query[:, :, 0], self.cache, self.length, mask=self.mask)[:, :, None]


AnyCrossKV = CrossKV | PackedCrossKV | QuantizedCrossKV


def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with queries (R, H, q, d), already divided by √d, over (R, H, e, d); `mask` adds to scores."""
    query_ = query.to(keys.dtype)
    if query.shape[2] > 1 or query.device.type != "cpu":
        out = functional.scaled_dot_product_attention(query_, keys, values, attn_mask=mask, scale=1.0)
        return out.to(query.dtype)
    # PyTorch's fused kernel takes a single query over bfloat16 keys five times as long as two products do.
    scores = torch.bmm(query_.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).view(*query.shape[:3], -1)
    weights = (scores if mask is None else scores.add_(mask)).softmax(dim=-1)
    return torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).view(query.shape).to(query.dtype)
