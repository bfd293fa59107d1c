"""Attention that reads grouped keys and values once where several new tokens come with a mask.

transformers repeats the keys and values for each query head there: with YuE's eight query heads to each of them, and
thousands of positions, those copies take longer than reading the weights. Here the queries that share keys stand side
by side as further queries; the numbers are the same.

R rows, H query heads, K key/value heads, q new tokens, L positions, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "v2m_grouped"
FEW = 16  # new tokens above which the mask, one row for each query head, is no longer small


def use(model: PreTrainedModel) -> None:
    """Gives `model` this attention, if it has PyTorch's."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """query (R, H, q, D), key and value (R, K, L, D), mask (R or 1, 1, q, L) → (R, q, H, D); as transformers asks."""
    rows, heads, q, width = query.shape
    groups = heads // key.shape[1]
    if attention_mask is None or groups == 1 or not 1 < q <= FEW:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, -1, groups * q, width),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, groups, 1),
        dropout_p=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    return out.reshape(rows, heads, q, width).transpose(1, 2).contiguous(), None
