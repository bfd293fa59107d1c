"""What a visual conditioner is shown of a video: near a window of the music, over the whole, and its rhythm.

B batch, F frames of the window, G of the whole video, R instants of rhythm, P tokens a frame, W their width, C what is
measured at each instant.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class VisualInputs(NamedTuple):
    """Times are seconds from the window's begin: of the whole video some are negative. A mask is True where there is
    something."""

    short_term: Tensor  # (B, F, P, W)
    short_term_times: Tensor  # (B, F)
    short_term_mask: Tensor  # (B, F) bool
    long_term: Tensor  # (B, G, P, W)
    long_term_times: Tensor  # (B, G)
    long_term_mask: Tensor  # (B, G) bool
    events: Tensor  # (B, R, C)
    event_times: Tensor  # (B, R)
    event_mask: Tensor  # (B, R) bool

    def to(self, device: torch.device | str) -> VisualInputs:
        return VisualInputs(*(each.to(device) for each in self))
