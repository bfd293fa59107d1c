"""Chunked application of a local function to a long signal, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def apply_chunked(
    apply: Callable[[Tensor], Tensor], x: Tensor, *, step: int, margin: int, in_stride: int = 1, out_stride: int = 1
) -> Tensor:
    """Compute `apply(x)` along the last dimension from chunks of `step` frames.

    Equal to `apply(x)` where a frame of output depends on at most `margin` frames of input on each side.

    Args:
        apply: (…, L · `in_stride`) → (…, L · `out_stride`), for any L; pads at the ends of its input.
        step, margin: Frames.
        in_stride, out_stride: Length of a frame in the input and in the output.
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
