"""The long/short-term visual conditioner: what is seen now and over the whole video, as tokens to attend to.

B batch, F frames, P tokens a frame, W width of a frame's tokens, D width of the language model, H heads, S tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.models.condition import Condition


@dataclass(frozen=True)
class ConditionerConfig:
    """Sizes; those of VidMuse (Tian et al., "VidMuse: A Simple Video-to-Music Generation Framework with Long-Short-Term
    Modeling", 2024) are the defaults.

    Args:
        kind: The published shape: "vidmuse".
        width: W, of the vision encoder.
        tokens: P, of the vision encoder for each frame.
        layers: Of each of the two transformers over a frame's tokens.
        heads: Of their attentions, each `head_width` wide.
        head_width: Of one head.
        feedforward: Width inside their feed-forwards.
        fusion_heads: Of the attention from the near frames to those of the whole video.
    """

    kind: Literal["vidmuse"] = "vidmuse"
    width: int = 768
    tokens: int = 50
    layers: int = 2
    heads: int = 16
    head_width: int = 64
    feedforward: int = 3072
    fusion_heads: int = 3

    def __post_init__(self) -> None:
        problems = [] if self.kind == "vidmuse" else [f"kind {self.kind!r} must be 'vidmuse'"]
        positive = ("width", "tokens", "layers", "heads", "head_width", "feedforward", "fusion_heads")
        problems += [f"{name} {getattr(self, name)} must be 1 or more" for name in positive if getattr(self, name) < 1]
        if not problems and self.width % self.fusion_heads:
            problems.append(f"width {self.width} must be a multiple of the {self.fusion_heads} fusion heads")
        if problems:
            raise ValueError("conditioner: " + "; ".join(problems))


class Conditioner(nn.Module):
    """Reads the tokens of each frame by themselves, then lets the near ones look at those of the whole video.

    As published: positions are those within a frame, so nothing says when a frame is shown.
    """

    def __init__(self, config: ConditionerConfig, width: int) -> None:
        super().__init__()
        self.near, self.whole = FrameReader(config), FrameReader(config)
        self.fusion = Fusion(config.width, config.fusion_heads)
        self.out = nn.Linear(config.width, width)

    def forward(self, near: Tensor, whole: Tensor) -> Condition:
        """Tokens (B, F, P, W) of the frames of the window and of the whole video → (B, F · P, D), of the window's F."""
        dtype = self.out.weight.dtype
        fused = self.fusion(self.near(near.to(dtype)), self.whole(whole.to(dtype)))
        return Condition.whole(self.out(fused))


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
        width, inner = config.width, config.heads * config.head_width
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
        x = x + self.out(_attended(query, key, value, self.heads))
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

    def forward(self, near: Tensor, whole: Tensor) -> Tensor:
        """(B, S, W) and (B, S', W) → (B, S, W)."""
        found = _attended(self.query(near), self.key(whole), self.value(whole), self.heads)
        x = self.norm_attention(found + near)
        return self.norm(self.mix(x) + x)


def _attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(B, S, W) each → (B, S, W), in `heads` shares of the width."""
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
