"""A transformers Llama's own layers, passed through with a third of the kernels: what a step of few tokens costs.

Its forward spends most of a small step on launching: norms in six kernels, rotations of queries and keys apart, a mask
made anew, and, from two new tokens on, the whole memory copied once for each query head.

R rows, q new tokens, D width of the model, G key/value heads, n query heads to each, d width of a head, e positions
attended to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from v2m.generators.yue.cache import Slab


class Decoder:
    """`model` (a `LlamaForCausalLM`, quantised or not) writing its memory to `slab`. The modules stay the model's."""

    def __init__(self, model: PreTrainedModel, slab: Slab) -> None:
        body: Any = model.get_decoder()
        assert model.config.model_type == "llama", model.config.model_type
        self.slab = slab
        self.embedding, self.layers, self.norm = body.embed_tokens, body.layers, body.norm
        cos, sin = body.rotary_emb(self.embedding.weight, torch.arange(slab.length, device=model.device)[None])
        half = sin.shape[-1] // 2
        self.cos = cos[0]  # (positions, d)
        self.sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)  # a rotated half changes its sign

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R, q) → (R, D), the last token's output after the final norm. The slab has advanced by q."""
        new = tokens.shape[1]
        mask, positions = self.slab.mask(new), self.slab.positions(new)
        turn = self.cos[positions][:, :, None], self.sin[positions][:, :, None]  # (R, q, 1, d)
        x = self.embedding(tokens)
        for layer, memory in zip(self.layers, self.slab.layers, strict=True):
            x = x + _attend(layer.self_attn, _norm(layer.input_layernorm, x), memory, turn, mask)
            x = x + layer.mlp(_norm(layer.post_attention_layernorm, x))
        self.slab.advance(new)
        return _norm(self.norm, x[:, -1])


def _attend(attention: Any, x: Tensor, memory: Any, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    rows, new, _ = x.shape
    width = attention.head_dim
    query = attention.q_proj(x)
    both = torch.cat([query, attention.k_proj(x)], dim=-1).view(rows, new, -1, width)  # G·n query, then G key heads
    both = torch.addcmul(both * turn[0], both.roll(width // 2, dims=-1), turn[1])
    heads = query.shape[-1] // width
    value = attention.v_proj(x).view(rows, new, -1, width).transpose(1, 2)
    key, value = memory.update(both[:, :, heads:].transpose(1, 2), value)
    found = grouped(both[:, :, :heads].transpose(1, 2), key, value, mask, attention.scaling)
    return attention.o_proj(found.transpose(1, 2).reshape(rows, new, -1))


def grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """(R, G·n, q, d) queries over (R, G, e, d) → (R, G·n, q, d); `mask` (R, 1, q, e) is added to the scores.

    The n heads of a group stand below each other as further queries of one head, so that keys are read once.
    """
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    below = heads // groups
    if new > 1:
        mask = mask.expand(-1, below, -1, -1).reshape(rows, 1, below * new, -1)
    out = functional.scaled_dot_product_attention(
        query.reshape(rows, groups, below * new, width), key, value, attn_mask=mask, scale=scale
    )
    return out.reshape(rows, heads, new, width)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
