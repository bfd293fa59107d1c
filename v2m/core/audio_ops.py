"""Operations on samples that several packages share: gain curves.

C channels, N samples, H hops of `HOP` samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Floats

HOP = 32
PIECE = HOP << 15  # samples worked on at a time


def apply_gain(samples: NDArray[np.float32], gain: Floats, start: int = 0) -> None:
    """Multiplies (C, N) in place by `gain` (H,), one value per hop, straight lines between the middles of the hops.

    `samples[:, 0]` is sample number `start` of the curve.
    """
    for low in range(0, samples.shape[1], PIECE):
        piece = samples[:, low : low + PIECE]
        first = start + low
        hops = slice(max(first // HOP - 1, 0), (first + piece.shape[1]) // HOP + 2)
        middles = np.arange(len(gain))[hops] * HOP + (HOP - 1) / 2
        piece *= np.interp(np.arange(first, first + piece.shape[1]), middles, gain[hops]).astype(np.float32)
