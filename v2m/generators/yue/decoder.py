"""A transformers Llama's own layers, passed through with a third of the kernels: what a step of few tokens costs.

Its forward spends most of a small step on launching: norms in six kernels, rotations of queries and keys apart, a mask
made anew, and, from two new tokens on, the whole memory copied once for each query head.

R rows, q new tokens, D width of the model, G key/value heads, n query heads to each, d width of a head, e positions
attended to, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from v2m.core.errors import DependencyError
from v2m.models.inference.kv_cache import KVCache, aligned_length

SLOW_ROW_COUNTS = (2, 3)  # vectors that MKL multiplies one after the other, reading the weights for each


class LlamaDecoder:
    """`model` (a `LlamaForCausalLM`, quantized or not) writing to a KV cache. The modules stay the model's."""

    def __init__(self, model: PreTrainedModel, cache: KVCache) -> None:
        body: Any = model.get_decoder()
        assert model.config.model_type == "llama", model.config.model_type
        self.cache = cache
        self.embedding, self.layers, self.norm = body.embed_tokens, body.layers, body.norm
        self._group_size = model.config.num_attention_heads // model.config.num_key_value_heads
        cos, sin = body.rotary_emb(self.embedding.weight, torch.arange(cache.max_length, device=model.device)[None])
        half = sin.shape[-1] // 2
        self.cos = cos[0]  # (positions, d)
        self.sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)  # a rotated half changes its sign

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R, q) → (R, D), the last token's output after the final norm. The cache has advanced by q."""
        new = tokens.shape[1]
        positions = self.cache.next_positions(new)
        position_ids = self.cache.position_ids(positions)
        mask = expand_mask(self.cache.attention_mask(positions), self._group_size)
        turn = self.cos[position_ids][:, :, None], self.sin[position_ids][:, :, None]  # (R, q, 1, d)
        x = self.embedding(tokens)
        for index, layer in enumerate(self.layers):
            attention, mlp = layer.self_attn, layer.mlp
            query, key, value = _rotary_qkv(attention, _norm(layer.input_layernorm, x), turn)
            key, value = self.cache.update(index, key, value, positions)
            found = gqa_attention(query, key, value, mask, attention.scaling)
            x = x + _linear(attention.o_proj, found.transpose(1, 2).reshape(*x.shape[:2], -1))
            given = _norm(layer.post_attention_layernorm, x)
            inner = mlp.act_fn(_linear(mlp.gate_proj, given)) * _linear(mlp.up_proj, given)
            x = x + _linear(mlp.down_proj, inner)
        self.cache.advance(new)
        return _norm(self.norm, x[:, -1])


def make_cache(
    model: PreTrainedModel, rows: int, length: int, *, padding: Sequence[int] = (), dtype: torch.dtype | None = None
) -> KVCache:
    """Return a cache for `rows` sequences of `length` positions or a few more; `dtype` None is that of the states."""
    config = model.config
    shape = (rows, config.num_key_value_heads, aligned_length(length), _head_dim(config))
    dtype = hidden_dtype(model) if dtype is None else dtype
    return KVCache(config.num_hidden_layers, shape, dtype, model.device, padding=padding, exact=True)


def row_bytes(config: PretrainedConfig, length: int, dtype: torch.dtype) -> int:
    """Return the bytes that one row of `length` positions takes in a cache."""
    width = config.num_key_value_heads * _head_dim(config)
    return 2 * config.num_hidden_layers * width * length * dtype.itemsize


def _head_dim(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rotary_qkv(attention: Any, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(R, q, D) → query (R, G·n, q, d), key and value (R, G, q, d), the first two rotated to their positions."""
    rows, new, _ = x.shape
    width = attention.head_dim
    query = _linear(attention.q_proj, x)
    both = torch.cat([query, _linear(attention.k_proj, x)], dim=-1).view(rows, new, -1, width)
    both = torch.addcmul(both * rotation[0], both.roll(width // 2, dims=-1), rotation[1]).transpose(1, 2)
    heads = query.shape[-1] // width
    value = _linear(attention.v_proj, x).view(rows, new, -1, width).transpose(1, 2)
    return both[:, :heads], both[:, heads:], value


def expand_mask(mask: Tensor, group_size: int) -> Tensor:
    """(R, 1, q, e) → (R, 1, n·q, e), or as it is where q = 1, for `grouped` with `below` = n query heads to a key's."""
    if mask.shape[2] == 1:
        return mask
    return mask.expand(-1, group_size, -1, -1).flatten(1, 2)[:, None]


def gqa_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """(R, G·n, q, d) queries over (R, G, e, d) → (R, G·n, q, d); `mask` is what `spread` gives, added to the scores.

    The n heads of a group stand below each other as further queries of one head, so that keys are read once.
    """
    rows, _, _, width = query.shape
    below = query.reshape(rows, key.shape[1], -1, width)
    out = functional.scaled_dot_product_attention(below, key, value, attn_mask=mask, scale=scale)
    return out.reshape(query.shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer: (…, D) and weight (O, D) → (…, O)."""
    count = x.numel() // x.shape[-1]
    if count not in SLOW_ROW_COUNTS or x.dtype is not torch.float32 or x.device.type != "cpu":
        return functional.linear(x, weight, bias)
    # The same product the other way round reads the weights once, if the vectors lie one behind the other.
    out = (weight @ x.reshape(count, -1).contiguous().T).T.contiguous().view(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def lm_head_rows(model: PreTrainedModel, start: int, end: int) -> Tensor:
    """(end − begin, D) float32: what of the output layer gives the logits of these tokens, whatever the layers are in.

    Raises:
        DependencyError: There are fewer tokens, or the output layer is quantized.
    """
    weight = model.get_parameter("lm_head.weight")
    if not weight.is_floating_point() or weight.shape[1] != model.config.hidden_size:
        raise DependencyError(
            f"the model's output layer is quantized ({weight.dtype}): take weights that leave it whole"
        )
    if weight.shape[0] < end:
        raise DependencyError(f"these are not the weights of YuE: {weight.shape[0]} tokens, not {end} or more")
    with torch.inference_mode():
        return weight[start:end].float()


def hidden_dtype(model: PreTrainedModel) -> torch.dtype:
    """The type of what the layers pass on, whatever their weights are stored in."""
    return model.get_parameter("model.embed_tokens.weight").dtype


def _linear(module: Any, x: Tensor) -> Tensor:
    return linear(x, module.weight, module.bias) if type(module) is nn.Linear else module(x)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
