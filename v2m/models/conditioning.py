"""Conditions of the music LM: tokens to attend to, their mask, and a bias added to the steps.

B batch, S condition tokens, R biases, T steps, D model dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class StepBias(NamedTuple):
    """Biases that are added to the LM's steps, given at equally spaced instants."""

    values: Tensor  # (B, R, D)
    positions: Tensor  # (B, R), unrounded steps
    mask: Tensor  # (B, R) bool, True where there is a value

    def interpolate(self, num_steps: int) -> Tensor:
        """Return (B, T, D) for the first `num_steps` = T steps, interpolated linearly.

        Before the first and after the last instant their own values hold; a row without any value is 0.
        """
        positions, mask = self.positions.float(), self.mask
        first = positions.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
        last = positions.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True)
        gap = ((last - first) / (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)).clamp(min=1e-3)
        steps = torch.arange(num_steps, device=positions.device).float().expand(len(positions), -1)
        steps = steps.clamp(first, last.maximum(first))  # (B, T)
        weights = (1 - (steps[:, :, None] - positions[:, None]).abs() / gap[..., None]).clamp(min=0)  # (B, T, R)
        weights = weights.masked_fill(~mask[:, None], 0.0).nan_to_num()
        return weights.to(self.values.dtype) @ self.values

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> StepBias:
        return StepBias(self.values.to(device, dtype), self.positions.to(device), self.mask.to(device))


class Condition(NamedTuple):
    """A condition of the LM; a row without valid tokens is unconditional."""

    tokens: Tensor  # (B, S, D)
    mask: Tensor  # (B, S) bool, True where a token is valid
    step_bias: StepBias | None = None  # added to the steps themselves

    @classmethod
    def from_tokens(cls, tokens: Tensor) -> Condition:
        """Return a condition of which all `tokens` (B, S, D) are valid."""
        return cls(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Condition:
        bias = None if self.step_bias is None else self.step_bias.to(device, dtype)
        return Condition(self.tokens.to(device, dtype), self.mask.to(device), bias)

    def select(self, rows: Tensor | slice) -> Condition:
        bias = None if self.step_bias is None else StepBias(*(value[rows] for value in self.step_bias))
        return Condition(self.tokens[rows], self.mask[rows], bias)

    def drop(self, rows: Tensor) -> Condition:
        """Return the same without valid tokens in the `rows` (B,) bool."""
        keep = ~rows[:, None]
        bias = None if self.step_bias is None else self.step_bias._replace(mask=self.step_bias.mask & keep)
        return Condition(self.tokens, self.mask & keep, bias)


class CFGBranch(NamedTuple):
    """A branch of classifier-free guidance: its logits' weight and condition (None: null condition)."""

    weight: float
    condition: Condition | None


def concat(*conditions: Condition | None) -> Condition | None:
    """Concatenate the conditions of one batch along S, without None; at most one may have a step bias."""
    present = [condition for condition in conditions if condition is not None]
    if len(present) < 2:
        return present[0] if present else None
    biases = [condition.step_bias for condition in present if condition.step_bias is not None]
    assert len(biases) < 2, "two conditions with a step bias"
    tokens = torch.cat([condition.tokens for condition in present], dim=1)
    mask = torch.cat([condition.mask for condition in present], dim=1)
    return Condition(tokens, mask, biases[0] if biases else None)
