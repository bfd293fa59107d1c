"""The published loop of YuE's stage 2: `generate()` once a frame with all of the window so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from v2m.generators.yue.tokenizer import CODEBOOK_SIZE, EOA, NUM_CODEBOOKS, SOA, STAGE_1, STAGE_2, first_id


class _Slots(LogitsProcessor):
    """Leaves to each token its own codebook's entries. `begin`: tokens before the first that is chosen."""

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        low = first_id(1 + input_ids.shape[1] - self.begin)
        allowed = torch.full_like(scores, -torch.inf)
        allowed[:, low : low + CODEBOOK_SIZE] = scores[:, low : low + CODEBOOK_SIZE]
        return allowed


def refine_published(model: Any, stream: Tensor, window: int = 300, batch: int = 4) -> Tensor:
    """(T,) → (8, T) as published: whole windows `batch` at a time, what is left over by itself."""
    whole = len(stream) // window * window
    windows = stream[:whole].view(-1, window)
    parts = [_windows(model, windows[k : k + batch]) for k in range(0, len(windows), batch)]
    if whole < len(stream):
        parts.append(_windows(model, stream[None, whole:]))
    return torch.cat([part.permute(2, 0, 1).flatten(1) for part in parts], dim=1)


def _windows(model: Any, windows: Tensor) -> Tensor:
    """(R, T) → (R, T, 8)."""
    first = windows + first_id(0)
    column = torch.ones_like(first[:, :1])
    ids = torch.cat([SOA * column, STAGE_1 * column, first, STAGE_2 * column], dim=1)
    begin = ids.shape[1]
    for frame in range(windows.shape[1]):
        ids = torch.cat([ids, first[:, frame : frame + 1]], dim=1)
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=NUM_CODEBOOKS - 1,
            max_new_tokens=NUM_CODEBOOKS - 1,
            do_sample=False,
            eos_token_id=EOA,
            pad_token_id=EOA,
            logits_processor=LogitsProcessorList([_Slots(ids.shape[1])]),
        )
        assert isinstance(found, Tensor)
        ids = found
    offsets = torch.tensor([first_id(book) for book in range(NUM_CODEBOOKS)])
    return ids[:, begin:].view(len(windows), -1, NUM_CODEBOOKS) - offsets
