"""Slow and obvious versions of what the package does fast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from v2m.models.conditioning import CFGBranch
from v2m.models.lm import LM


@torch.inference_mode()
def greedy(lm: LM, branches: Sequence[CFGBranch], frames: int, *, clips: int = 1) -> Tensor:
    """The likeliest codes (B, K, T) for B = `clips`: the whole model anew for each step and each branch."""
    config = lm.config
    total = 1 + frames + max(config.delay_pattern)
    sequence = torch.full((clips, config.num_codebooks, total), config.special_token_id)
    for step in range(1, total):
        logits = torch.stack([share * lm(sequence[:, :, :step], heard)[:, :, -1] for share, heard in branches]).sum(0)
        for k, delay in enumerate(config.delay_pattern):
            if delay < step <= delay + frames:
                sequence[:, k, step] = logits[:, k].argmax(dim=-1)
    rows = [sequence[:, k, delay + 1 : delay + 1 + frames] for k, delay in enumerate(config.delay_pattern)]
    return torch.stack(rows, dim=1)
