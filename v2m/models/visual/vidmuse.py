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
from v2m.models.visual.inputs import Seen

Kind = Literal["v2m", "vidmuse"]
POSITIVE = (
    *("width", "tokens", "layers", "heads", "head_width", "feedforward", "fusion_heads", "pooled"),
    *("rhythm", "rhythm_layers", "rhythm_stride", "code_rate"),
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

    kind: Kind = "v2m"
    width: int = 768
    tokens: int = 5
    layers: int = 2
    heads: int = 8
    head_width: int = 64
    feedforward: int = 2048
    nulls: bool = True
    fusion_heads: int = 3
    pooled: int = 4
    rhythm: int = 8
    rhythm_layers: int = 3
    rhythm_stride: int = 2
    code_rate: int = 50

    def __post_init__(self) -> None:
        kinds = get_args(Kind)
        problems = [] if self.kind in kinds else [f"kind {self.kind!r} must be {' or '.join(map(repr, kinds))}"]
        problems += [f"{name} {getattr(self, name)} must be 1 or more" for name in POSITIVE if getattr(self, name) < 1]
        if not problems and self.kind == "vidmuse" and self.width % self.fusion_heads:
            problems.append(f"width {self.width} must be a multiple of the {self.fusion_heads} fusion heads")
        if not problems and self.kind == "v2m" and self.inner % 2:
            problems.append(f"heads {self.heads} times head_width {self.head_width} must be even")
        if problems:
            raise ValueError("conditioner: " + "; ".join(problems))

    @property
    def inner(self) -> int:
        """Of all heads together."""
        return self.heads * self.head_width


class BagOfFrames(nn.Module):
    """Reads the tokens of each frame by themselves, then lets the near ones look at those of the whole video.

    As published: positions are those within a frame, so nothing says when a frame is shown.
    """

    def __init__(self, config: ConditionerConfig, width: int) -> None:
        super().__init__()
        self.near, self.whole = FrameReader(config), FrameReader(config)
        self.fusion = Fusion(config.width, config.fusion_heads)
        self.out = nn.Linear(config.width, width)

    def forward(self, seen: Seen) -> Condition:
        """(B, F · P, D), of the window's frames; rhythm and times are not looked at."""
        dtype, tokens = self.out.weight.dtype, seen.near.shape[2]
        near, whole = (each.to(dtype) for each in (seen.near, seen.whole))
        near_mask, whole_mask = (mask.repeat_interleave(tokens, 1) for mask in (seen.near_mask, seen.whole_mask))
        fused = self.fusion(self.near(near), self.whole(whole), whole_mask)
        return Condition(self.out(fused) * near_mask[..., None], near_mask)


class FrameReader(nn.Module):
    """A transformer over the tokens of one frame, normed before each step and at the end."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, config.tokens, config.width))
        self.layers = nn.ModuleList(FrameLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, P, W) → (B, F · P, W)."""
        x = frames.flatten(0, 1) + self.positions  # (B · F, P, W)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).unflatten(0, frames.shape[:2]).flatten(1, 2)


class FrameLayer(nn.Module):
    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        width, inner = config.width, config.inner
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.feedforward)
        self.contract = nn.Linear(config.feedforward, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, W) → (B, P, W)."""
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        x = x + self.out(attended(query, key, value, self.heads))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class Fusion(nn.Module):
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

    def forward(self, near: Tensor, whole: Tensor, there: Tensor | None = None) -> Tensor:
        """(B, S, W) and (B, S', W), of which those of `there` (B, S') are → (B, S, W)."""
        found = attended(self.query(near), self.key(whole), self.value(whole), self.heads, there)
        x = self.norm_attention(found + near)
        return self.norm(self.mix(x) + x)


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int, there: Tensor | None = None) -> Tensor:
    """(B, S, W) each → (B, S, W), in `heads` shares of the width; looks at those of `there` (B, S') alone, and gives 0
    where a row has none."""
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    if there is None:
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    mask = there[:, None, None]
    none = ~mask.any(dim=-1, keepdim=True)  # a softmax over nothing would be no number
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask | none)
    return found.masked_fill(none, 0.0).transpose(1, 2).flatten(2)
