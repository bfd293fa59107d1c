"""The music language model: a causal transformer over the codes of a neural codec, as in MusicGen.

Copet et al., "Simple and Controllable Music Generation" (2023). Published weights come through `v2m.mappings`; fast
decoding is `v2m.models.inference.decoder`. Names of submodules are names of weights in checkpoints: they stay.

B batch, K codebooks, T steps, S condition tokens, D model dimension, H heads, V codebook size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from v2m.models.conditioning import Condition

MAX_PERIOD = 10_000.0  # of the slowest wave of the positions (Vaswani et al., 2017)


@dataclass(frozen=True)
class LMConfig:
    """Sizes of the LM; the defaults are MusicGen-small's.

    Args:
        dim: D, even and a multiple of the heads.
        num_layers: Transformer layers.
        num_heads: H of each attention.
        ffn_dim: Dimension inside the feed-forward; None is 4 · D.
        num_codebooks: K; of stereo models twice the codec's, left and right in turn.
        codebook_size: V, codes of a codebook; the code V itself is the special token.
        channels: 2 where left and right are interleaved.
        delays: Of each codebook, in steps; None delays each (pair of) codebook(s) by one more than the one before.
        cross_attention: Whether each layer cross-attends to conditions; else they stand before the codes as a prefix.
        dropout: Share of activations dropped in training.
    """

    dim: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    ffn_dim: int | None = None
    num_codebooks: int = 4
    codebook_size: int = 2048
    channels: int = 1
    delays: tuple[int, ...] | None = None
    cross_attention: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.delays is not None:
            object.__setattr__(self, "delays", tuple(self.delays))  # YAML gives a list
        positive = ("dim", "num_layers", "num_heads", "num_codebooks", "codebook_size", "channels", "inner_dim")
        problems = [f"{name} {getattr(self, name)} must be 1 or more" for name in positive if getattr(self, name) < 1]
        if not problems and (self.dim % self.num_heads or self.dim % 2):
            problems.append(f"dim {self.dim} must be even and a multiple of the {self.num_heads} heads")
        if not problems and self.num_codebooks % self.channels:
            problems.append(f"{self.num_codebooks} codebooks cannot be shared by {self.channels} channels")
        if self.delays is not None and (len(self.delays) != self.num_codebooks or min(self.delays, default=-1) < 0):
            problems.append(f"delays {list(self.delays)} must be {self.num_codebooks} numbers of 0 or more")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout {self.dropout:g} must lie in 0 to 1")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def inner_dim(self) -> int:
        """Dimension inside the feed-forward."""
        return 4 * self.dim if self.ffn_dim is None else self.ffn_dim

    @property
    def delay_pattern(self) -> tuple[int, ...]:
        """(K,) steps that each codebook is delayed by."""
        return self.delays or tuple(k // self.channels for k in range(self.num_codebooks))

    @property
    def special_token_id(self) -> int:
        """The code V: a position that holds no frame."""
        return self.codebook_size


class LM(nn.Module):
    """Delayed codes (B, K, T) in, logits of each next code (B, K, T, V) out."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False  # recomputes each layer in the backward pass, to save memory
        size, dim, count = config.codebook_size, config.dim, config.num_codebooks
        self.embeddings = nn.ModuleList(nn.Embedding(size + 1, dim) for _ in range(count))
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleList(nn.Linear(dim, size, bias=False) for _ in range(count))
        self._init_weights()

    @torch.no_grad()
    def _init_weights(self) -> None:
        """Initialize as MusicGen does: normal, truncated at three standard deviations of 1/√(input dimension).

        Layers that write to the residual stream have a further 1/√(2n) in the n-th layer: logits are of about 1 then,
        and the loss near ln V. Queries, keys and values stay as PyTorch initializes them.
        """
        for module in (*self.embeddings, *self.heads):
            _init_normal(module.weight, 1.0)
        for n, layer in enumerate(self.layers, 1):
            for name, module in layer.named_modules():
                if name.rpartition(".")[2] in {"out", "expand", "contract"}:
                    _init_normal(module.weight, 1 / math.sqrt(2 * n))

    def forward(self, codes: Tensor, condition: Condition | None = None) -> Tensor:
        """Return logits (B, K, T, V): at step t those of step t + 1, independent of the steps after t.

        `codes` (B, K, T) int64 in 0–V are laid out as by `patterns.apply_delays`: the first step holds V alone. With
        cross-attention a row of `condition` without valid tokens is unconditional. The step bias is added to the steps,
        so that an event conditions the very steps that sound when it is shown.
        """
        x = self.embed(codes)  # (B, T, D)
        num_steps = x.shape[1]
        cond = cond_mask = causal_mask = None
        recompute: Any = checkpoint
        if condition is not None and condition.step_bias is not None:
            x = x + condition.step_bias.interpolate(num_steps).to(x.dtype)
        if condition is not None and self.config.cross_attention:
            cond, cond_mask = condition.tokens.to(x.dtype), condition.mask
        elif condition is not None:
            x = torch.cat([condition.tokens.to(x.dtype), x], dim=1)  # (B, S + T, D)
            causal_mask = prefix_causal_mask(condition.mask, x.shape[1])
        positions = torch.arange(x.shape[1], device=x.device)
        x = x + sinusoidal_embedding(positions, self.config.dim).to(x.dtype)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = recompute(layer, x, cond, cond_mask, causal_mask, use_reentrant=False)
            else:
                x = layer(x, cond, cond_mask, causal_mask)
        return self.logits(x[:, -num_steps:])

    def embed(self, codes: Tensor) -> Tensor:
        """(B, K, T) → (B, T, D), without positions."""
        return torch.stack([table(codes[:, k]) for k, table in enumerate(self.embeddings)]).sum(dim=0)

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, K, T, V)."""
        x = self.norm(x)
        return torch.stack([head(x) for head in self.heads], dim=1)


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward; each normed before and added after."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        dim, rate = config.dim, config.dropout
        self.norm_self, self.self_attention = nn.LayerNorm(dim), SelfAttention(dim, config.num_heads, rate)
        self.norm_cross: nn.LayerNorm | None = None
        self.cross_attention: CrossAttention | None = None
        if config.cross_attention:
            self.norm_cross, self.cross_attention = nn.LayerNorm(dim), CrossAttention(dim, config.num_heads, rate)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, config.inner_dim, bias=False)
        self.contract = nn.Linear(config.inner_dim, dim, bias=False)
        self.dropout = nn.Dropout(rate)

    def forward(
        self, x: Tensor, cond: Tensor | None = None, cond_mask: Tensor | None = None, causal_mask: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) → (B, T, D), with `cond` (B, S, D) to cross-attend to where `cond_mask` (B, S) is True.

        `causal_mask` (B, 1, T, T) bool marks the steps that each step attends to; None is all up to itself.
        """
        x = x + self.dropout(self.self_attention(self.norm_self(x), causal_mask))
        if cond is not None:
            assert self.norm_cross is not None, "this LM has no cross-attention"
            assert self.cross_attention is not None, "this LM has no cross-attention"
            x = x + self.dropout(self.cross_attention(self.norm_cross(x), cond, cond_mask))
        inner = self.dropout(functional.gelu(self.expand(self.norm_feedforward(x))))
        return x + self.dropout(self.contract(inner))


class SelfAttention(nn.Module):
    """Causal multi-head attention among the steps."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, causal_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, T, D); `causal_mask` as in `TransformerLayer.forward`."""
        query, key, value = (_split_heads(part, self.num_heads) for part in self.query_key_value(x).chunk(3, dim=-1))
        rate = self.dropout if self.training else 0.0
        options: Any = {"attn_mask": causal_mask, "dropout_p": rate, "is_causal": causal_mask is None}
        return self.out(_merge_heads(functional.scaled_dot_product_attention(query, key, value, **options)))


class CrossAttention(nn.Module):
    """Multi-head attention from the steps to a condition."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, cond: Tensor, cond_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) and (B, S, D) → (B, T, D), 0 for rows of `cond_mask` (B, S) without a valid token."""
        key, value = self.key_value(cond).chunk(2, dim=-1)
        rate = self.dropout if self.training else 0.0
        return self.out(masked_attention(self.query(x), key, value, self.num_heads, cond_mask, dropout=rate))


def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None, *, dropout: float = 0.0
) -> Tensor:
    """Multi-head attention of (B, T, D) over (B, S, D) where `mask` (B, S); 0 for rows without any."""
    query, key, value = (_split_heads(part, num_heads) for part in (query, key, value))
    if mask is None:
        return _merge_heads(functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout))
    attn_mask = mask[:, None, None]  # (B, 1, 1, S)
    empty = ~attn_mask.any(dim=-1, keepdim=True)  # a softmax over nothing is NaN
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask | empty, dropout_p=dropout)
    return _merge_heads(out.masked_fill(empty, 0.0))


def sinusoidal_embedding(positions: Tensor, dim: int) -> Tensor:
    """Sinusoidal positional embedding: (T,) positions → (T, dim) float32.

    Cosines, then sines, of waves from period 2π to 2π · `MAX_PERIOD`.
    """
    half = dim // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / max(half - 1, 1)
    angles = positions.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def prefix_causal_mask(prefix_mask: Tensor, num_steps: int) -> Tensor:
    """Return the mask (B, 1, T, T) bool of `num_steps` = T steps, the first S a prefix.

    A step attends to itself, and to all valid steps before it; `prefix_mask` (B, S) marks those of the prefix.
    """
    causal = torch.ones(num_steps, num_steps, dtype=torch.bool, device=prefix_mask.device).tril()
    valid = functional.pad(prefix_mask, (0, num_steps - prefix_mask.shape[1]), value=True)[:, None, None, :]
    return (causal & valid) | torch.eye(num_steps, dtype=torch.bool, device=prefix_mask.device)


def _init_normal(weight: Any, scale: float) -> None:
    std = scale / math.sqrt(weight.shape[1])
    nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) → (B, H, T, D/H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D/H) → (B, T, D)."""
    return x.transpose(1, 2).flatten(2)
