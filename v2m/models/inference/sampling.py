"""Top-k/top-p sampling, repetition penalty, classifier-free guidance; nothing syncs the device.

B rows, V tokens. transformers applies these in the order `apply_cfg`, `apply_repetition_penalty`, temperature, top-k,
top-p. The guidance of MusicGen, over several conditions, is `v2m.models.music_model.MusicModel.cfg_branches`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def apply_cfg(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, 2022), (B, V): log-probabilities u + `scale` · (c − u)."""
    cond, uncond = cond.log_softmax(-1), uncond.log_softmax(-1)
    return uncond + scale * (cond - uncond)


def apply_repetition_penalty(logits: Tensor, present: Tensor, penalty: float) -> Tensor:
    """Make tokens of the context, `present` (B, V) bool, less likely.

    CTRL (Keskar et al., 2019), equation 4, as transformers reads it: positive logits are divided by `penalty` ≥ 1,
    negative ones multiplied.
    """
    return torch.where(present, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def filter_logits(logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return logits (B, V) at a `temperature` > 0 with the unlikely ones at −inf.

    `top_k` tokens stay (and those equal to the last of them; 0 is all); then the likeliest that together have the
    probability `top_p`, at least one.
    """
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if top_p < 1.0:
        ascending, order = logits.sort(-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[..., -1] = False
        logits = logits.masked_fill(torch.zeros_like(tail).scatter(-1, order, tail), -torch.inf)
    return logits


def gumbel_argmax(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one token of each row by its probability, (B, V) → (B,), from the generator's state alone.

    Exponential races, the Gumbel-max trick: the first arrival among rates p is token i with probability pᵢ.
    """
    arrivals = torch.empty_like(logits).exponential_(generator=generator).clamp_min_(torch.finfo(logits.dtype).tiny)
    return (logits - arrivals.log()).argmax(-1)


def sample_token(
    logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, generator: torch.Generator
) -> Tensor:
    """Draw the next tokens, (B, V) → (B,); a `temperature` of 0 takes the likeliest and draws nothing."""
    if temperature == 0:
        return logits.argmax(-1)
    return gumbel_argmax(filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p), generator)
