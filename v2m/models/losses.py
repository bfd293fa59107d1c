"""What the language model is trained to lower: how little it expected each code, by codebook.

B batch, K codebooks, T frames, S steps (`v2m.models.patterns`), V entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from v2m.models import patterns


class CodebookLoss(NamedTuple):
    """In nats a code: `mean` over codebooks, each of which counts alike, and (K,) `codebooks`."""

    mean: Tensor
    per_codebook: Tensor


def model_inputs(codes: Tensor, lengths: Tensor, delays: Sequence[int], special_token_id: int) -> Tensor:
    """Codes (B, K, T), of which each clip has `lengths` (B,) → what the model reads: (B, K, S − 1).

    Behind its end a short clip reads as the end of a piece does when it is written. Without its last max(`pattern`)
    steps this is what audiocraft trains on, where the last frames of the later codebooks are not learned.
    """
    frames = torch.arange(codes.shape[2], device=codes.device)
    held = codes.masked_fill(frames >= lengths[:, None, None], special_token_id)
    return patterns.apply_delays(held, delays, special_token_id)[:, :, :-1]


def codebook_cross_entropy(logits: Tensor, codes: Tensor, lengths: Tensor, delays: Sequence[int]) -> CodebookLoss:
    """Cross entropy of the codes (B, K, T) that are there, of each codebook the mean over all clips.

    Args:
        logits: (B, K, S', V) of the first S' steps that `inputs` gives: codes that come later do not count.
        codes: (B, K, T) int64.
        lengths: (B,) frames of each clip.
        pattern: Delays of the codebooks.
    """
    frames = torch.arange(codes.shape[2], device=codes.device)
    there = frames < lengths[:, None]  # (B, T)
    found = []
    for k, delay in enumerate(delays):  # one after the other: float32 logits of all are large
        said = logits[:, k, delay : delay + codes.shape[2]].float()  # (B, ≤ T, V)
        counted = there[:, : said.shape[1]]
        each = functional.cross_entropy(said.mT, codes[:, k, : said.shape[1]], reduction="none")
        found.append((each * counted).sum() / counted.sum().clamp(min=1))
    codebooks = torch.stack(found)
    return CodebookLoss(codebooks.mean(), codebooks)
