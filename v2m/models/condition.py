"""What a language model listens to while it writes: tokens, and which of them are there.

B batch, S condition tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Condition(NamedTuple):
    """`tokens` (B, S, D); `mask` (B, S) bool, True where there is one. A row without any is a row without condition."""

    tokens: Tensor
    mask: Tensor

    @classmethod
    def whole(cls, tokens: Tensor) -> Condition:
        """All of `tokens` (B, S, D) are there."""
        return cls(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Condition:
        return Condition(self.tokens.to(device, dtype), self.mask.to(device))


def join(*conditions: Condition | None) -> Condition | None:
    """Conditions of one batch side by side on the memory axis, in this order; those that are None are left out."""
    there = [each for each in conditions if each is not None]
    if not there:
        return None
    return Condition(torch.cat([each.tokens for each in there], dim=1), torch.cat([each.mask for each in there], dim=1))


def stack(*conditions: Condition | None) -> Condition | None:
    """Conditions one below the other, as rows of one batch: shorter ones are filled up with tokens that are not there.

    None is a single row without condition. None where all are None.
    """
    there = [each for each in conditions if each is not None]
    if not there:
        return None
    longest, like = max(each.tokens.shape[1] for each in there), there[0].tokens
    filled = [_filled(each or _none(like), longest) for each in conditions]
    return Condition(torch.cat([each.tokens for each in filled]), torch.cat([each.mask for each in filled]))


def _none(like: Tensor) -> Condition:
    return Condition(like.new_zeros(1, 0, like.shape[2]), torch.zeros(1, 0, dtype=torch.bool, device=like.device))


def _filled(condition: Condition, length: int) -> Condition:
    more = length - condition.tokens.shape[1]
    pad = torch.nn.functional.pad
    return Condition(pad(condition.tokens, (0, 0, 0, more)), pad(condition.mask, (0, more)))
