"""The music language model: a causal transformer over the codes of a neural codec, as in MusicGen and VidMuse.

Copet et al., "Simple and Controllable Music Generation" (2023). Weights of the published models fit through
`v2m.mappings`; the fast way to write with it is `v2m.models.inference.decoder`.

B batch, K codebooks, T steps, S condition tokens, D width, H heads, V entries of a codebook.
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

MAX_PERIOD = 10_000.0  # of the slowest position wave (Vaswani et al., 2017)


@dataclass(frozen=True)
class LMConfig:
    """Sizes of the model; those of MusicGen-small are the defaults.

    Args:
        width: D, a multiple of twice the heads.
        layers: Transformer layers.
        heads: H of each attention.
        feedforward: Width inside the feed-forward; None is 4 · D.
        codebooks: K; of stereo models twice the codec's, left and right in turn.
        entries: V, how many codes a codebook has; the code V itself means "none".
        channels: 2 where left and right are interleaved.
        delays: Of each codebook, in steps; None delays each (pair of) codebook(s) by one more than the one before.
        cross_attention: Whether conditions are attended to in each layer; else they stand before the codes.
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
            object.__setattr__(self, "delays", tuple(self.delays))  # a YAML gives a list
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
        """Width inside the feed-forward."""
        return 4 * self.dim if self.ffn_dim is None else self.ffn_dim

    @property
    def delay_pattern(self) -> tuple[int, ...]:
        """(K,) steps that each codebook is delayed by."""
        return self.delays or tuple(k // self.channels for k in range(self.num_codebooks))

    @property
    def special_token_id(self) -> int:
        """The code that means "none"."""
        return self.codebook_size


class LM(nn.Module):
    """Delayed codes (B, K, T) in, logits of each next code (B, K, T, V) out."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False  # computes each layer anew in the backward pass, to save memory
        self.embeddings = nn.ModuleList(
            nn.Embedding(config.codebook_size + 1, config.dim) for _ in range(config.num_codebooks)
        )
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.heads = nn.ModuleList(
            nn.Linear(config.dim, config.codebook_size, bias=False) for _ in range(config.num_codebooks)
        )
        self._init_weights()

    @torch.no_grad()
    def _init_weights(self) -> None:
        """Weights to train from nothing, as MusicGen's: normal up to three standard deviations of 1/√(width in), in
        what the n-th layer adds a further 1/√(2n). Logits of about 1 then, a loss near ln V. Queries, keys and values
        stay as PyTorch makes them."""
        for module in (*self.embeddings, *self.heads):
            _init_normal(module.weight, 1.0)
        for n, layer in enumerate(self.layers, 1):
            for name, module in layer.named_modules():
                if name.rpartition(".")[2] in {"out", "expand", "contract"}:
                    _init_normal(module.weight, 1 / math.sqrt(2 * n))

    def forward(self, codes: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits (B, K, T, V): at step t those of step t + 1, of which steps after t know nothing.

        Args:
            codes: (B, K, T) int64 in 0–V, as `patterns.build` lays them out: the first step holds V alone.
            condition: What the music is to fit. With cross-attention a row without any token is not conditioned. Its
                cues are added to the steps, so that an event is told where it is to sound.
        """
        x = self.embed(codes)  # (B, T, D)
        steps = x.shape[1]
        memory: Tensor | None = None
        there: Tensor | None = None
        past: Tensor | None = None
        again: Any = checkpoint
        if condition is not None and condition.step_bias is not None:
            x = x + condition.step_bias.interpolate(steps).to(x.dtype)
        if condition is not None and self.config.cross_attention:
            memory, there = condition.tokens.to(x.dtype), condition.mask[:, None, None, :]  # (B, 1, 1, S)
        elif condition is not None:
            x = torch.cat([condition.tokens.to(x.dtype), x], dim=1)  # (B, S + T, D)
            past = prefix_causal_mask(condition.mask, x.shape[1])
        x = x + sinusoidal_embedding(torch.arange(x.shape[1], device=x.device), self.config.dim).to(x.dtype)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = again(layer, x, memory, there, past, use_reentrant=False)
            else:
                x = layer(x, memory, there, past)
        return self.logits(x[:, -steps:])

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
        width, rate = config.dim, config.dropout
        self.norm_self, self.self_attention = nn.LayerNorm(width), SelfAttention(width, config.num_heads, rate)
        if config.cross_attention:
            self.norm_cross, self.cross_attention = nn.LayerNorm(width), CrossAttention(width, config.num_heads, rate)
        self.norm_feedforward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.inner_dim, bias=False)
        self.contract = nn.Linear(config.inner_dim, width, bias=False)
        self.dropout = nn.Dropout(rate)

    def forward(
        self, x: Tensor, cond: Tensor | None = None, cond_mask: Tensor | None = None, causal_mask: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) → (B, T, D).

        Args:
            x: What the layer below gives.
            memory: (B, S, D) to attend to across.
            there: (B, 1, 1, S) bool, which of it is there.
            past: (B, 1, T, T) bool, what each step may look back at; None is all before it and itself.
        """
        x = x + self.dropout(self.self_attention(self.norm_self(x), causal_mask))
        if cond is not None:
            x = x + self.dropout(self.cross_attention(self.norm_cross(x), cond, cond_mask))
        inner = self.dropout(functional.gelu(self.expand(self.norm_feedforward(x))))
        return x + self.dropout(self.contract(inner))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, causal_mask: Tensor | None = None) -> Tensor:
        query, key, value = (_split_heads(each, self.num_heads) for each in self.query_key_value(x).chunk(3, dim=-1))
        rate = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=causal_mask, dropout_p=rate, is_causal=causal_mask is None
        )
        return self.out(_merge_heads(found))


class CrossAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, cond: Tensor, cond_mask: Tensor | None = None) -> Tensor:
        """Where a row of `there` (B, 1, 1, S) has no token, 0."""
        query = _split_heads(self.query(x), self.num_heads)
        key, value = (_split_heads(each, self.num_heads) for each in self.key_value(cond).chunk(2, dim=-1))
        rate = self.dropout if self.training else 0.0
        if cond_mask is None:
            found = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        else:
            none = ~cond_mask.any(dim=-1, keepdim=True)  # a softmax over nothing would be no number
            found = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=cond_mask | none, dropout_p=rate
            )
            found = found.masked_fill(none, 0.0)
        return self.out(_merge_heads(found))


def sinusoidal_embedding(positions: Tensor, dim: int) -> Tensor:
    """(T,) places → (T, width) float32: cosines, then sines, of waves from period 2π to 2π · `PERIOD`."""
    half = dim // 2
    slowing = torch.arange(half, device=positions.device, dtype=torch.float32) / max(half - 1, 1)
    angles = positions.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * slowing)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def prefix_causal_mask(prefix_mask: Tensor, num_steps: int) -> Tensor:
    """(B, 1, T, T) bool for `total` = T steps of which the first S are a prefix, there by `mask` (B, S): a step sees
    itself, and of what came before it all that is there."""
    causal = torch.ones(num_steps, num_steps, dtype=torch.bool, device=prefix_mask.device).tril()
    there = functional.pad(prefix_mask, (0, num_steps - prefix_mask.shape[1]), value=True)[:, None, None, :]
    return (causal & there) | torch.eye(num_steps, dtype=torch.bool, device=prefix_mask.device)


def _init_normal(weight: Any, scale: float) -> None:
    deviation = scale / math.sqrt(weight.shape[1])
    nn.init.trunc_normal_(weight, std=deviation, a=-3 * deviation, b=3 * deviation)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) → (B, H, T, D/H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D/H) → (B, T, D)."""
    return x.transpose(1, 2).flatten(2)
