"""The delay pattern (Copet et al., "Simple and Controllable Music Generation", 2023, section 2.2).

Codebook k is written `delays[k]` steps late, so that one step of the language model predicts one code of each codebook
and still knows the lower ones of that frame. The first step holds no codes: it is where the sequence starts.

B batch, K codebooks, T frames, S steps = T + max(delays) + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def num_steps(num_frames: int, delays: Sequence[int]) -> int:
    """S: how many steps `frames` take."""
    return num_frames + max(delays) + 1


def apply_delays(codes: Tensor, delays: Sequence[int], special_token_id: int) -> Tensor:
    """Codes (B, K, T) → the sequence (B, K, S), with `special` wherever a codebook has no frame."""
    batch, count, frames = codes.shape
    sequence = codes.new_full((batch, count, num_steps(frames, delays)), special_token_id)
    for k, delay in enumerate(delays):
        sequence[:, k, delay + 1 : delay + 1 + frames] = codes[:, k]
    return sequence


def revert_delays(sequence: Tensor, delays: Sequence[int]) -> Tensor:
    """The sequence (B, K, S) → codes (B, K, T), the inverse of `build`; also of what is not codes: (B, K, S, …)."""
    frames = sequence.shape[2] - max(delays) - 1
    assert frames >= 0, f"{sequence.shape[2]} steps are fewer than a pattern with delays {tuple(delays)} has"
    rows = [sequence[:, k, delay + 1 : delay + 1 + frames] for k, delay in enumerate(delays)]
    return torch.stack(rows, dim=1)


def predicted(outputs: Tensor, delays: Sequence[int]) -> Tensor:
    """What the model says at each step but the last about the next one, (B, K, S − 1, …) → by frames: (B, K, T, …)."""
    return revert_delays(torch.cat([outputs[:, :, :1], outputs], dim=2), delays)  # nothing is said about the first step
