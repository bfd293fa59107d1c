"""What a language model listens to while it writes: tokens, which of them are there, and cues at their steps.

B batch, S condition tokens, R cues, T steps, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class StepBias(NamedTuple):
    """What is added to the steps themselves: `tokens` (B, R, D) at equally spaced `places` (B, R), steps unrounded;
    `mask` (B, R) bool, True where there is one."""

    values: Tensor
    positions: Tensor
    mask: Tensor

    def interpolate(self, num_steps: int) -> Tensor:
        """(B, T, D) for the first `steps` = T steps: between two cues a line from one to the other, before the first
        and after the last those themselves, in a row without any 0."""
        places, there = self.positions.float(), self.mask
        first = places.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
        last = places.masked_fill(~there, -torch.inf).amax(dim=1, keepdim=True)
        gap = ((last - first) / (there.sum(dim=1, keepdim=True) - 1).clamp(min=1)).clamp(min=1e-3)
        at = torch.arange(num_steps, device=places.device).float().expand(len(places), -1)
        at = at.clamp(first, last.maximum(first))  # (B, T)
        weights = (1 - (at[:, :, None] - places[:, None]).abs() / gap[..., None]).clamp(min=0)  # (B, T, R)
        weights = weights.masked_fill(~there[:, None], 0.0).nan_to_num()
        return weights.to(self.values.dtype) @ self.values

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> StepBias:
        return StepBias(self.values.to(device, dtype), self.positions.to(device), self.mask.to(device))


class Condition(NamedTuple):
    """`tokens` (B, S, D); `mask` (B, S) bool, True where there is one. A row without any is a row without condition.
    With `cues` the steps are told something at their time, beside what they attend to."""

    tokens: Tensor
    mask: Tensor
    step_bias: StepBias | None = None

    @classmethod
    def from_tokens(cls, tokens: Tensor) -> Condition:
        """All of `tokens` (B, S, D) are there."""
        return cls(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Condition:
        cues = None if self.step_bias is None else self.step_bias.to(device, dtype)
        return Condition(self.tokens.to(device, dtype), self.mask.to(device), cues)

    def select(self, rows: Tensor | slice) -> Condition:
        """Of these rows of the batch alone, in this order."""
        cues = None if self.step_bias is None else StepBias(*(each[rows] for each in self.step_bias))
        return Condition(self.tokens[rows], self.mask[rows], cues)

    def drop(self, rows: Tensor) -> Condition:
        """The same, in those `rows` (B,) bool empty."""
        kept = ~rows[:, None]
        cues = None if self.step_bias is None else self.step_bias._replace(mask=self.step_bias.mask & kept)
        return Condition(self.tokens, self.mask & kept, cues)


def concat(*conditions: Condition | None) -> Condition | None:
    """Conditions of one batch side by side on the memory axis, in this order; those that are None are left out. Of
    one at most the cues are kept, for no more may have any."""
    there = [each for each in conditions if each is not None]
    if len(there) < 2:
        return there[0] if there else None
    cues = [each.step_bias for each in there if each.step_bias is not None]
    assert len(cues) < 2, "cues of two conditions"
    tokens, mask = (torch.cat(parts, dim=1) for parts in zip(*(each[:2] for each in there), strict=True))
    return Condition(tokens, mask, cues[0] if cues else None)
