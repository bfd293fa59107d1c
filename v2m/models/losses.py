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

IGNORED = -100  # a target that does not count


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
    valid_codes = codes.masked_fill(frames >= lengths[:, None, None], IGNORED)
    targets = patterns.apply_delays(valid_codes, delays, IGNORED)[:, :, 1:]
    num_padded = logits.shape[2] - targets.shape[2]  # below 0 where the last steps have no logits
    targets = functional.pad(targets, (0, num_padded), value=IGNORED)  # (B, K, S')
    losses = []
    # One codebook after the other: float32 logits of all are large. Neither sliced nor transposed: the gradient of a
    # slice is a copy of all logits, and a softmax over an inner axis takes two to four times as long.
    for predicted, target in zip(logits.unbind(1), targets.unbind(1), strict=True):
        rows = predicted.float().flatten(0, 1)  # (B · S', V)
        loss = functional.cross_entropy(rows, target.flatten(), ignore_index=IGNORED, reduction="none")
        losses.append(loss.sum() / (target != IGNORED).sum().clamp(min=1))
    per_codebook = torch.stack(losses)
    return CodebookLoss(per_codebook.mean(), per_codebook)
