"""Attention of few new tokens over a long memory, several query heads to one key/value head; nothing is copied.

transformers repeats keys and values once for each query head as soon as there is more than one new token.

R rows, G key/value heads, n query heads to each, q new tokens, e positions attended to, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "v2m_grouped"


def grouped(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, *, scaling: float, **__: object
) -> tuple[Tensor, None]:
    """(R, G·n, q, D) queries over (R, G, e, D) → (R, q, G·n, D); `attention_mask` (R, 1, q, e) is added to the scores.

    The n heads of a group stand below each other as further queries of one head.
    """
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    below = heads // groups
    mask = attention_mask.expand(rows, below, new, -1).reshape(rows, 1, below * new, -1)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, groups, below * new, width), key, value, attn_mask=mask, scale=scaling
    )
    return out.reshape(rows, heads, new, width).transpose(1, 2), None


@contextmanager
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model` attends with `grouped`; each forward must be given a mask of four dimensions."""
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


AttentionInterface.register(NAME, grouped)
