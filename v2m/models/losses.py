"""Cross-entropy loss of the music LM, per codebook, under the delay pattern.

B batch, K codebooks, T frames, S steps (`v2m.models.patterns`), V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from v2m.models import patterns


class CodebookLoss(NamedTuple):
    """Nats per code: `mean` over the codebooks, which weigh alike, and `per_codebook` (K,)."""

    mean: Tensor
    per_codebook: Tensor


def model_inputs(codes: Tensor, lengths: Tensor, delays: Sequence[int], special_token_id: int) -> Tensor:
    """Codes (B, K, T), of which each clip has `lengths` (B,) → inputs of the model (B, K, S − 1).

    Behind its end a short clip reads like the end of a piece at inference. Without its last max(`delays`) steps this
    is what audiocraft trains on, where the last frames of the later codebooks are not learned.
    """
    frames = torch.arange(codes.shape[2], device=codes.device)
    codes = codes.masked_fill(frames >= lengths[:, None, None], special_token_id)
    return patterns.apply_delays(codes, delays, special_token_id)[:, :, :-1]


def codebook_cross_entropy(logits: Tensor, codes: Tensor, lengths: Tensor, delays: Sequence[int]) -> CodebookLoss:
    """Cross-entropy of the valid codes (B, K, T), for each codebook the mean over all clips.

    `logits` (B, K, S', V) are those of the first S' steps of `model_inputs`; later codes do not count. `lengths` (B,)
    are frames of each clip, `delays` steps of each codebook.
    """
    frames = torch.arange(codes.shape[2], device=codes.device)
    valid = frames < lengths[:, None]  # (B, T)
    losses = []
    for k, delay in enumerate(delays):  # one after the other: float32 logits of all codebooks are large
        predicted = logits[:, k, delay : delay + codes.shape[2]].float()  # (B, ≤ T, V)
        num_frames = predicted.shape[1]
        counted = valid[:, :num_frames]
        loss = functional.cross_entropy(predicted.mT, codes[:, k, :num_frames], reduction="none")
        losses.append((loss * counted).sum() / counted.sum().clamp(min=1))
    per_codebook = torch.stack(losses)
    return CodebookLoss(per_codebook.mean(), per_codebook)
