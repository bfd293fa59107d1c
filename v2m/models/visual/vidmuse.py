"""Config of the visual conditioners, and VidMuse's conditioner, which has no temporal order.

The other one, with time, is `v2m.models.visual.temporal`. Names of submodules are names of weights: they stay.

B batch, F short-term frames, G long-term frames, P tokens a frame, W vision dimension, D model dimension of the LM, S
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.models.conditioning import Condition
from v2m.models.visual.inputs import VisualInputs

ConditionerKind = Literal["v2m", "vidmuse"]
_POSITIVE_FIELDS = (
    *("vision_dim", "num_tokens", "num_layers", "num_heads", "head_dim", "ffn_dim", "num_fusion_heads"),
    *("num_pooled_tokens", "num_event_channels", "num_event_layers", "event_stride", "codec_frame_rate"),
)


@dataclass(frozen=True)
class ConditionerConfig:
    """Sizes of a visual conditioner.

    VidMuse's (Tian et al., "VidMuse: A Simple Video-to-Music Generation Framework with Long-Short-Term Modeling",
    2024) are kind "vidmuse", 50 tokens, 16 heads and a feed-forward of 3072, without null tokens.

    Args:
        kind: "v2m" adds time and visual events; "vidmuse" is the published conditioner, without temporal order.
        vision_dim: W, dimension of the vision encoder's tokens.
        num_tokens: P, tokens of the vision encoder for each frame.
        num_layers: v2m: layers across time; vidmuse: layers over a frame's tokens.
        num_heads: Heads of their attentions.
        head_dim: Dimension of one head; v2m's layers have the dimension of all heads together.
        ffn_dim: Dimension inside their feed-forwards.
        null_tokens: Whether missing text and video are learned tokens; else they are left out.
        num_fusion_heads: vidmuse: heads of the attention from short-term to long-term frames.
        num_pooled_tokens: v2m: tokens that a frame is pooled to, if it has more.
        num_event_channels: v2m: channels of the visual events.
        num_event_layers: v2m: convolutions over the events.
        event_stride: v2m: instants that become one token.
        codec_frame_rate: v2m: codec frames per second, the LM's positions.
    """

    kind: ConditionerKind = "v2m"
    vision_dim: int = 768
    num_tokens: int = 5
    num_layers: int = 2
    num_heads: int = 8
    head_dim: int = 64
    ffn_dim: int = 2048
    null_tokens: bool = True
    num_fusion_heads: int = 3
    num_pooled_tokens: int = 4
    num_event_channels: int = 8
    num_event_layers: int = 3
    event_stride: int = 2
    codec_frame_rate: int = 50

    def __post_init__(self) -> None:
        kinds = get_args(ConditionerKind)
        problems = [] if self.kind in kinds else [f"kind {self.kind!r} must be {' or '.join(map(repr, kinds))}"]
        problems += [
            f"{name} {getattr(self, name)} must be 1 or more" for name in _POSITIVE_FIELDS if getattr(self, name) < 1
        ]
        if not problems and self.kind == "vidmuse" and self.vision_dim % self.num_fusion_heads:
            problems.append(
                f"vision_dim {self.vision_dim} must be a multiple of the {self.num_fusion_heads} fusion heads"
            )
        if not problems and self.kind == "v2m" and self.inner_dim % 2:
            problems.append(f"num_heads {self.num_heads} times head_dim {self.head_dim} must be even")
        if problems:
            raise ValueError("conditioner: " + "; ".join(problems))

    @property
    def inner_dim(self) -> int:
        """Dimension of all heads together."""
        return self.num_heads * self.head_dim


class VidMuseConditioner(nn.Module):
    """VidMuse's conditioner: a transformer over each frame's tokens, then attention to the long-term frames.

    As published: positions are those within a frame, so nothing depends on when a frame is shown.
    """

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        self.near, self.whole = FrameTransformer(config), FrameTransformer(config)
        self.fusion = LongShortTermFusion(config.vision_dim, config.num_fusion_heads)
        self.out = nn.Linear(config.vision_dim, dim)

    def forward(self, visual: VisualInputs) -> Condition:
        """Return (B, F · P, D) for the window's frames; events and times are ignored."""
        dtype, num_tokens = self.out.weight.dtype, visual.short_term.shape[2]
        short_term, long_term = self.near(visual.short_term.to(dtype)), self.whole(visual.long_term.to(dtype))
        short_term_mask = visual.short_term_mask.repeat_interleave(num_tokens, 1)
        long_term_mask = visual.long_term_mask.repeat_interleave(num_tokens, 1)
        fused = self.fusion(short_term, long_term, long_term_mask)
        return Condition(self.out(fused) * short_term_mask[..., None], short_term_mask)


class FrameTransformer(nn.Module):
    """A transformer over the tokens of one frame, normed before each step and at the end."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, config.num_tokens, config.vision_dim))
        self.layers = nn.ModuleList(FrameTransformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.vision_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, P, W) → (B, F · P, W)."""
        x = frames.flatten(0, 1) + self.positions  # (B · F, P, W)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).unflatten(0, frames.shape[:2]).flatten(1, 2)


class FrameTransformerLayer(nn.Module):
    """Self-attention and feed-forward; each normed before and added after."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        dim, inner_dim = config.vision_dim, config.inner_dim
        self.num_heads = config.num_heads
        self.norm_attention = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * inner_dim, bias=False)
        self.out = nn.Linear(inner_dim, dim)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, config.ffn_dim)
        self.contract = nn.Linear(config.ffn_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, W) → (B, P, W)."""
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        x = x + self.out(masked_attention(query, key, value, self.num_heads))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class LongShortTermFusion(nn.Module):
    """Attention from the short-term frames' tokens to the long-term ones'; normed after each step."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.norm_attention = nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.mix.weight)  # starts as the identity, as published
        nn.init.zeros_(self.mix.bias)

    def forward(self, short_term: Tensor, long_term: Tensor, long_term_mask: Tensor | None = None) -> Tensor:
        """(B, S, W) and (B, S', W) with a mask (B, S') → (B, S, W)."""
        key, value = self.key(long_term), self.value(long_term)
        fused = masked_attention(self.query(short_term), key, value, self.num_heads, long_term_mask)
        x = self.norm_attention(fused + short_term)
        return self.norm(self.mix(x) + x)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of (B, S, W) over (B, S', W) where `mask` (B, S') is True; 0 for rows without any."""
    query, key, value = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    if mask is None:
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    attn_mask = mask[:, None, None]
    empty = ~attn_mask.any(dim=-1, keepdim=True)  # a softmax over nothing is NaN
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask | empty)
    return out.masked_fill(empty, 0.0).transpose(1, 2).flatten(2)
