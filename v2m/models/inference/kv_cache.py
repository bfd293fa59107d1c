"""What a decoder remembers: the keys and values of the steps behind it, and those of what it listens to.

R rows (sequences side by side), H heads, d width of a head, L positions, q new steps, e positions attended to, S tokens
of a condition, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from v2m.models.conditioning import Condition

GROWTH = 64


class KVCache:
    """Keys and values of `layers` layers for `shape` = (R, H, L, d), written into place.

    `filled` positions are there. Room grows by `ROUNDED` positions at a time, all of which are attended to, those not
    written hidden: the CPU's libraries prepare anew for each shape, and copy what does not lie in one piece. With
    `whole` there is room for all from the start, and with `fixed` = e a step attends to the first e, so that it can be
    captured; the place is then counted on the device, in `at` (1,). `there` (R, P) says which of the first P positions
    hold something; None is all.
    """

    def __init__(
        self,
        layers: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        prefix_mask: Tensor | None = None,
        preallocate: bool = False,
    ) -> None:
        rows, heads, length, width = shape
        self.max_length = length
        self.seq_length = 0
        self.attended_length: int | None = None
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        room = length if preallocate else 0
        # zeros: what is hidden must still be a number
        self.buffers = [torch.zeros(2, rows, heads, room, width, dtype=dtype, device=device) for _ in range(layers)]
        self._index = torch.arange(length, device=device)
        self._valid: Tensor | None = None
        if prefix_mask is not None and not bool(prefix_mask.all()):
            self._valid = torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device)
            self._valid[:, 0, 0, : prefix_mask.shape[1]] = prefix_mask

    def update(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """New keys and values (2, R, H, q, d) → all that are attended to, (R, H, e, d) each, views."""
        slots, count = self.buffers[layer], new.shape[3]
        if self.attended_length is not None:
            slots.index_copy_(3, self.position, new.to(slots.dtype))
        else:
            slots[:, :, :, self.seq_length : self.seq_length + count] = new
        return slots[0, :, :, : self._attended(count)], slots[1, :, :, : self._attended(count)]

    def mask(self, new: int) -> Tensor:
        """(R or 1, 1, q, e) for the next `new` steps, to be added to their scores: −inf where they may not look.

        To be asked for before they are written: this makes room for them.
        """
        self._reserve(self.seq_length + new)
        here = self.position[:, None] + self._index[:new, None]  # (q, 1)
        index = self._index[: self._attended(new)]
        may = (index <= here)[None, None]
        if self._valid is not None:
            may = (may & self._valid[..., : len(index)]) | (index == here)  # of nothing a softmax would be no number
        return torch.zeros((), dtype=self.buffers[0].dtype, device=may.device).where(may, -torch.inf)

    def advance(self, new: int) -> None:
        """After `new` steps; while `fixed`, `filled` stands still."""
        self.position += new
        if self.attended_length is None:
            self.seq_length += new

    def _reserve(self, end: int) -> None:
        room = self.buffers[0].shape[3]
        if self.attended_length is None and end > room:
            more = min(-(-end // GROWTH) * GROWTH, self.max_length) - room
            for layer, slots in enumerate(self.buffers):  # one after the other: no second copy of all
                self.buffers[layer] = functional.pad(slots, (0, 0, 0, more))

    def _attended(self, new: int) -> int:
        if self.attended_length is not None:
            return self.attended_length
        return self.buffers[0].shape[3] if new == 1 else self.seq_length + new


@dataclass(frozen=True)
class CrossAttentionInput:
    """Conditions of the rows `begin` to `end`: `tokens` (R, S, D), and `there` (R, 1, 1, S) where not all are."""

    start: int
    end: int
    tokens: Tensor
    mask: Tensor | None


def pack_masked_tokens(condition: Condition, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """These rows of a condition with the tokens that are there in front and no more room than the fullest needs.

    Attention has no order, so that (R, S, D) tokens mean the same wherever they stand. The mask (R, 1, 1, S) is None
    where all rows are full.
    """
    tokens, mask = condition.tokens[list(rows)], condition.mask[list(rows)]
    counts = mask.sum(dim=1)
    front = torch.arange(mask.shape[1], device=mask.device) < counts[:, None]
    if not torch.equal(front, mask):
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        tokens = tokens.gather(1, order[..., None].expand_as(tokens))
    longest = int(counts.max())
    full = bool((counts == longest).all())
    return tokens[:, :longest], None if full else front[:, None, None, :longest]
