"""The long/short-term visual conditioner: what is seen now and over the whole video, as tokens to attend to.

B batch, F frames, P tokens a frame, W width of a frame's tokens, D width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

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


class Conditioner(nn.Module):
    def __init__(self, config: ConditionerConfig, width: int) -> None:
        super().__init__()
        raise NotImplementedError(config, width)

    def forward(self, near: Tensor, whole: Tensor) -> Condition:
        """Tokens (B, F, P, W) of the frames of the window and of the whole video → (B, F · P, D)."""
        raise NotImplementedError(near, whole)
