"""Decoder of YuE: a transformers Llama's own layers, run with a KV cache written in place.

transformers' forward spends most of a step of few tokens on launching kernels: a norm takes six, queries and keys are
rotated apart, the mask is made anew for each forward, and, from two new tokens on, all keys and values are copied once
for each query head. This one takes a third of the kernels. `v2m.models.inference.kv_cache` says why the cache is not
transformers' own.

R rows, q new tokens, D dimension of the model, G key/value heads, n query heads of each, d dimension of a head, e
positions attended to, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from v2m.core.errors import DependencyError
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.kernel_choice import Kernel, choose_kernel
from v2m.models.inference.kv_cache import KVCache, aligned_length

SLOW_ROW_COUNTS = (2, 3)  # vectors that MKL multiplies one after the other, reading the weights for each


class PackedLinear(nn.Module):
    """A linear layer whose rounded weight is laid out for few vectors at a time; in the type of its input."""

    def __init__(self, layer: nn.Linear, kernel: Kernel, rows: int) -> None:
        super().__init__()
        self._multiply, self._dtype, self.bias = kernel.make(layer.weight.detach(), rows), kernel.dtype, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        out = self._multiply(x.to(self._dtype)).to(x.dtype)
        return out if self.bias is None else out + self.bias


def quantize_layers(model: PreTrainedModel, precision: Precision, rows: int = 2) -> None:
    """Round the linear layers of all blocks on the CPU, one after the other; the output layer stays whole."""
    kernel = choose_kernel(precision, model, model.device)
    for block in model.get_decoder().layers:  # pyright: ignore[reportGeneralTypeIssues]
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if type(layer) is nn.Linear:
                    setattr(part, name, PackedLinear(layer, kernel, rows))


class LlamaDecoder:
    """Forward of a `LlamaForCausalLM`, quantized or not, with a KV cache. The modules stay the model's."""

    def __init__(self, model: PreTrainedModel, cache: KVCache) -> None:
        body: Any = model.get_decoder()
        assert model.config.model_type == "llama", model.config.model_type
        self.cache = cache
        self._embedding, self._layers, self._final_norm = body.embed_tokens, body.layers, body.norm
        self._group_size = model.config.num_attention_heads // model.config.num_key_value_heads
        cos, sin = body.rotary_emb(self._embedding.weight, torch.arange(cache.max_length, device=model.device)[None])
        half = sin.shape[-1] // 2
        self._cos = cos[0]  # (positions, d)
        self._sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)  # rotate_half negates its first half

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids (R, q) → the last token's output after the final norm, (R, D). The cache advances by q."""
        num_new = ids.shape[1]
        positions = self.cache.next_positions(num_new)
        position_ids = self.cache.position_ids(positions)
        mask = self.cache.attention_mask(positions)
        assert mask is not None  # the cache is not quantized
        mask = expand_mask(mask, self._group_size)
        rotation = self._cos[position_ids][:, :, None], self._sin[position_ids][:, :, None]  # (R, q, 1, d)
        x = self._embedding(ids)  # (R, q, D)
        for index, layer in enumerate(self._layers):
            attention, mlp = layer.self_attn, layer.mlp
            query, key, value = _rotary_qkv(attention, _rms_norm(layer.input_layernorm, x), rotation)
            key, value = self.cache.update(index, key, value, positions)
            heads = gqa_attention(query, key, value, mask, attention.scaling)  # (R, G·n, q, d)
            x = x + _linear(attention.o_proj, heads.transpose(1, 2).reshape(*x.shape[:2], -1))
            normed = _rms_norm(layer.post_attention_layernorm, x)
            hidden = mlp.act_fn(_linear(mlp.gate_proj, normed)) * _linear(mlp.up_proj, normed)
            x = x + _linear(mlp.down_proj, hidden)
        self.cache.advance(num_new)
        return _rms_norm(self._final_norm, x[:, -1])


def make_cache(model: PreTrainedModel, rows: int, length: int, *, padding: Sequence[int] = ()) -> KVCache:
    """A cache for `rows` sequences of `length` positions or a few more, in the dtype of the hidden states."""
    config = model.config
    shape = (rows, config.num_key_value_heads, aligned_length(length), _head_dim(config))
    return KVCache(config.num_hidden_layers, shape, hidden_dtype(model), model.device, padding=padding, exact=True)


def row_bytes(config: PretrainedConfig, length: int, dtype: torch.dtype) -> int:
    """Bytes that one row of `length` positions takes in a cache."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * _head_dim(config) * length * dtype.itemsize


def _head_dim(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rotary_qkv(attention: Any, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(R, q, D) → query (R, G·n, q, d), key and value (R, G, q, d), the first two rotated."""
    rows, num_new, _ = x.shape
    head_dim, (cos, sin) = attention.head_dim, rotation
    query = _linear(attention.q_proj, x)
    both = torch.cat([query, _linear(attention.k_proj, x)], dim=-1).view(rows, num_new, -1, head_dim)
    both = torch.addcmul(both * cos, both.roll(head_dim // 2, dims=-1), sin).transpose(1, 2)
    value = _linear(attention.v_proj, x).view(rows, num_new, -1, head_dim).transpose(1, 2)
    num_heads = query.shape[-1] // head_dim
    return both[:, :num_heads], both[:, num_heads:], value


def expand_mask(mask: Tensor, group_size: int) -> Tensor:
    """Mask (R, 1, q, e) → (R, 1, n·q, e) for `gqa_attention`, n = `group_size`; as it is where q = 1."""
    if mask.shape[2] == 1:
        return mask
    return mask.expand(-1, group_size, -1, -1).flatten(1, 2)[:, None]


def gqa_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Grouped-query attention of (R, G·n, q, d) over (R, G, e, d) → (R, G·n, q, d).

    The n query heads of a key head become further queries of one head, so that keys are read once. `mask`, as of
    `expand_mask`, is added to the scores.
    """
    rows, _, _, head_dim = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, head_dim)
    out = functional.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    return out.reshape(query.shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layer: x (…, D) and weight (O, D) → (…, O)."""
    count = x.numel() // x.shape[-1]
    if count not in SLOW_ROW_COUNTS or x.dtype is not torch.float32 or x.device.type != "cpu":
        return functional.linear(x, weight, bias)
    # The transposed product reads the weights once, if the vectors are contiguous.
    out = (weight @ x.reshape(count, -1).contiguous().T).T.contiguous().view(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def lm_head_rows(model: PreTrainedModel, start: int, end: int) -> Tensor:
    """Rows (end − start, D) float32 of an unquantized output layer: the logits of these tokens."""
    weight = model.get_parameter("lm_head.weight")
    if not weight.is_floating_point() or weight.shape[1] != model.config.hidden_size:
        message = f"the model's output layer is quantized ({weight.dtype}): take weights that leave it whole"
        raise DependencyError(message)
    if weight.shape[0] < end:
        raise DependencyError(f"these are not the weights of YuE: {weight.shape[0]} tokens, not {end} or more")
    with torch.inference_mode():
        return weight[start:end].float()


def hidden_dtype(model: PreTrainedModel) -> torch.dtype:
    """Dtype of the hidden states, whatever the weights are stored in."""
    return model.get_parameter("model.embed_tokens.weight").dtype


def _linear(module: Any, x: Tensor) -> Tensor:
    return linear(x, module.weight, module.bias) if type(module) is nn.Linear else module(x)


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
