"""What leads a video into the language model: sizes of both shapes, and VidMuse's, a bag of frames.

The other shape, which knows when each frame is shown, is `v2m.models.visual.temporal`.

B batch, F frames of the window, G of the whole video, P tokens a frame, W width of a frame's tokens, D width of the
language model, H heads, S tokens.
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
    """Sizes. Those of VidMuse (Tian et al., "VidMuse: A Simple Video-to-Music Generation Framework with Long-Short-Term
    Modeling", 2024) are kind "vidmuse", 50 tokens, 16 heads and a feed-forward of 3072, without nulls.

    Args:
        kind: "v2m" knows when a frame is shown and reads the rhythm; "vidmuse" is the published shape.
        width: W, of the vision encoder.
        tokens: P, of the vision encoder for each frame.
        layers: Of the transformer across time; of VidMuse's two over a frame's tokens.
        heads: Of their attentions, each `head_width` wide.
        head_width: Of one head. v2m's layers are as wide as all heads together.
        feedforward: Width inside their feed-forwards.
        nulls: Whether what stands for no text and no video is learned; else it is nothing at all.
        fusion_heads: vidmuse: of the attention from the near frames to those of the whole video.
        pooled: v2m: tokens that a frame is brought down to, if it has more.
        rhythm: v2m: how many things are measured at each instant of the rhythm.
        rhythm_layers: v2m: convolutions over it.
        rhythm_stride: v2m: instants that become one token.
        code_rate: v2m: codec frames a second, which are the language model's positions.
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
        """Of all heads together."""
        return self.num_heads * self.head_dim


class VidMuseConditioner(nn.Module):
    """Reads the tokens of each frame by themselves, then lets the near ones look at those of the whole video.

    As published: positions are those within a frame, so nothing says when a frame is shown.
    """

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        self.near, self.whole = FrameTransformer(config), FrameTransformer(config)
        self.fusion = LongShortTermFusion(config.vision_dim, config.num_fusion_heads)
        self.out = nn.Linear(config.vision_dim, dim)

    def forward(self, visual: VisualInputs) -> Condition:
        """(B, F · P, D), of the window's frames; rhythm and times are not looked at."""
        dtype, tokens = self.out.weight.dtype, visual.short_term.shape[2]
        near, whole = (each.to(dtype) for each in (visual.short_term, visual.long_term))
        near_mask, whole_mask = (
            mask.repeat_interleave(tokens, 1) for mask in (visual.short_term_mask, visual.long_term_mask)
        )
        fused = self.fusion(self.near(near), self.whole(whole), whole_mask)
        return Condition(self.out(fused) * near_mask[..., None], near_mask)


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
    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        width, inner = config.vision_dim, config.inner_dim
        self.heads = config.num_heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.ffn_dim)
        self.contract = nn.Linear(config.ffn_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, W) → (B, P, W)."""
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        x = x + self.out(masked_attention(query, key, value, self.heads))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class LongShortTermFusion(nn.Module):
    """Attention from the near frames' tokens to the whole video's; normed after each step."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm_attention = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.mix.weight)  # at first it changes nothing, as published
        nn.init.zeros_(self.mix.bias)

    def forward(self, short_term: Tensor, long_term: Tensor, long_term_mask: Tensor | None = None) -> Tensor:
        """(B, S, W) and (B, S', W), of which those of `there` (B, S') are → (B, S, W)."""
        found = masked_attention(
            self.query(short_term), self.key(long_term), self.value(long_term), self.heads, long_term_mask
        )
        x = self.norm_attention(found + short_term)
        return self.norm(self.mix(x) + x)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """(B, S, W) each → (B, S, W), in `heads` shares of the width; looks at those of `there` (B, S') alone, and gives 0
    where a row has none."""
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    if mask is None:
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    attn_mask = mask[:, None, None]
    none = ~attn_mask.any(dim=-1, keepdim=True)  # a softmax over nothing would be no number
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask | none)
    return found.masked_fill(none, 0.0).transpose(1, 2).flatten(2)
