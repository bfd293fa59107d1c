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
    if len(there) < 2:
        return there[0] if there else None
    return Condition(torch.cat([each.tokens for each in there], dim=1), torch.cat([each.mask for each in there], dim=1))
