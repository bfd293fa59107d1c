"""What a visual conditioner is shown of a video: near a window of the music, over the whole, and its rhythm.

B batch, F frames of the window, G of the whole video, R instants of rhythm, P tokens a frame, W their width, C what is
measured at each instant.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Seen(NamedTuple):
    """Times are seconds from the window's begin: of the whole video some are negative. A mask is True where there is
    something."""

    near: Tensor  # (B, F, P, W)
    near_times: Tensor  # (B, F)
    near_mask: Tensor  # (B, F) bool
    whole: Tensor  # (B, G, P, W)
    whole_times: Tensor  # (B, G)
    whole_mask: Tensor  # (B, G) bool
    rhythm: Tensor  # (B, R, C)
    rhythm_times: Tensor  # (B, R)
    rhythm_mask: Tensor  # (B, R) bool

    def to(self, device: torch.device | str) -> Seen:
        return Seen(*(each.to(device) for each in self))
