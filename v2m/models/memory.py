"""What a decoder remembers: the keys and values of the steps behind it, and those of what it listens to.

R rows (sequences side by side), H heads, d width of a head, L positions, q new steps, e positions attended to, S tokens
of a condition, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from v2m.models.condition import Condition


class Past:
    """Keys and values of `layers` layers for `shape` = (R, H, L, d), written into place.

    `filled` positions are there; with `fixed` = e they are attended to as the first e ones, those not yet written
    hidden, so that all shapes stay and a step can be captured; the place is then counted on the device, in `at` (1,).
    `open` (R, P) says what is there of the first P positions; None is all.
    """

    def __init__(
        self,
        layers: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        there: Tensor | None = None,
    ) -> None:
        rows, heads, length, width = shape
        self.length = length
        self.filled = 0
        self.fixed: int | None = None
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.slots = [torch.zeros(2, rows, heads, length, width, dtype=dtype, device=device) for _ in range(layers)]
        self._index = torch.arange(length, device=device)
        self._there: Tensor | None = None
        if there is not None and not bool(there.all()):
            self._there = torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device)
            self._there[:, 0, 0, : there.shape[1]] = there

    def write(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """New keys and values (2, R, H, q, d) → all that are attended to, (R, H, e, d) each, views."""
        slots = self.slots[layer]
        if self.fixed is not None:
            slots.index_copy_(3, self.at, new)
            seen = slots[:, :, :, : self.fixed]
        else:
            end = self.filled + new.shape[3]
            slots[:, :, :, self.filled : end] = new
            seen = slots[:, :, :, :end]
        return seen[0], seen[1]

    def mask(self, new: int) -> Tensor | None:
        """(R or 1, 1, q, e) bool for the next `new` steps, True where they may look; None is everywhere."""
        if self.fixed is not None:
            seen = (self._index[: self.fixed] <= self.at)[None, None, None]
            return seen if self._there is None else seen & self._there[..., : self.fixed]
        end = self.filled + new
        there = None if self._there is None else self._there[..., :end]
        if new == 1:
            return there
        own = self._index[self.filled : end, None]
        causal = (self._index[:end] <= own)[None, None]
        if there is None:
            return causal
        return (causal & there) | (self._index[:end] == own)  # over nothing a softmax would be no number

    def advance(self, new: int) -> None:
        """After `new` steps; while `fixed`, `filled` stands still."""
        self.at += new
        if self.fixed is None:
            self.filled += new


@dataclass(frozen=True)
class Heard:
    """Conditions of the rows `begin` to `end`: `tokens` (R, S, D), and `there` (R, 1, 1, S) where not all are."""

    begin: int
    end: int
    tokens: Tensor
    there: Tensor | None


def gathered(condition: Condition, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
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
