"""Long signals through a local function piece by piece, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def apply_chunked(
    apply: Callable[[Tensor], Tensor], x: Tensor, *, step: int, margin: int, in_stride: int = 1, out_stride: int = 1
) -> Tensor:
    """`apply(x)` along the last dimension, computed from pieces of `step` frames.

    Equal to the whole where a frame of output depends on at most `margin` frames of input on each side.

    Args:
        apply: (…, L · `taken`) → (…, L · `given`), for any L; treats the ends of what it gets as those of `x`.
        step, margin: Frames.
        taken, given: Length of a frame in the input and in the output.
    """
    total = -(-x.shape[-1] // in_stride)
    if total <= step + 2 * margin:
        return apply(x)
    parts = []
    for start in range(0, total, step):
        low, end = max(start - margin, 0), start + step
        out = apply(x[..., low * in_stride : (end + margin) * in_stride])
        parts.append(out[..., (start - low) * out_stride : None if end >= total else (end - low) * out_stride])
    return torch.cat(parts, dim=-1)
