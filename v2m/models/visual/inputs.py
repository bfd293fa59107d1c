"""Inputs of a visual conditioner: frames of the window, frames of the whole video, and visual events.

B batch, F short-term frames, G long-term frames, R instants of events, P tokens a frame, W their dimension, C event
channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class VisualInputs(NamedTuple):
    """Features of a batch of windows.

    Short-term frames are those of the window, long-term ones of the whole video (VidMuse's terms). Times are seconds
    from the window's start: those of long-term frames may be negative. Masks are True where there is a value.
    """

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
        """Move all of it."""
        return VisualInputs(*(value.to(device) for value in self))
