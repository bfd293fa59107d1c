"""Delay pattern of the codebooks.

Copet et al., "Simple and Controllable Music Generation" (2023), section 2.2. Codebook k is delayed by `delays[k]`
steps, so that one step of the LM predicts one code of each codebook, each conditioned on the lower ones of its frame.
The first step is the start of the sequence and holds no codes. With delays 0, 1, 2 and 3 frames (kf: codebook k of
frame f, · the special token):

    step   0   1   2   3   4   5
    k = 0  ·   00  01  02  ·   ·
    k = 1  ·   ·   10  11  12  ·
    k = 2  ·   ·   ·   20  21  22

B batch, K codebooks, T frames, S steps = T + max(delays) + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def apply_delays(codes: Tensor, delays: Sequence[int], special_token_id: int) -> Tensor:
    """Codes (B, K, T) → sequence (B, K, S), with `special_token_id` wherever a codebook has no frame."""
    batch, count, frames = codes.shape
    sequence = codes.new_full((batch, count, frames + max(delays) + 1), special_token_id)
    for k, delay in enumerate(delays):
        sequence[:, k, delay + 1 : delay + 1 + frames] = codes[:, k]
    return sequence


def revert_delays(sequence: Tensor, delays: Sequence[int]) -> Tensor:
    """Sequence (B, K, S) → codes (B, K, T), the inverse of `apply_delays`; also of (B, K, S, …)."""
    frames = sequence.shape[2] - max(delays) - 1
    assert frames >= 0, f"{sequence.shape[2]} steps are fewer than a pattern with delays {tuple(delays)} has"
    rows = [sequence[:, k, delay + 1 : delay + 1 + frames] for k, delay in enumerate(delays)]
    return torch.stack(rows, dim=1)
