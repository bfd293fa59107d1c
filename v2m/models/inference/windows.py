"""Music longer than the LM's window: overlapping windows, each prompted with the one before.

All lengths and positions are codec frames. B batch, K codebooks, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from v2m.core.progress import sub_progress
from v2m.core.types import ProgressFn, SamplingConfig
from v2m.models.conditioning import CFGBranch
from v2m.models.inference.decoder import Decoder


class Window(NamedTuple):
    """Frames `start` to `end`, of which the first `prompt` are known when it is generated."""

    start: int
    end: int
    prompt: int


def plan_windows(num_frames: int, window: int, stride: int) -> list[Window]:
    """Return windows that cover `num_frames`, at least one, each `stride` after the one before.

    The last is moved back so that it ends with the music: it is as long as the others, with a longer prompt. Music
    shorter than a window is a single shorter one. Windows of 8 with stride 5 over 15 frames (p prompt, n new):

        n n n n n n n n
                  p p p n n n n n
                      p p p p p p n n      start 7, not 10
    """
    assert 0 < stride < window, f"a stride of {stride} frames leaves no overlap in windows of {window}"
    assert num_frames > 0, "there is nothing to generate"
    windows = [Window(0, min(num_frames, window), 0)]
    while (covered := windows[-1].end) < num_frames:
        start = min(windows[-1].start + stride, num_frames - window)
        windows.append(Window(start, start + window, covered - start))
    return windows


def window_seed(seed: int, index: int) -> int:
    """Return the 63-bit seed of window or section `index` of a piece: no two windows or pieces share one."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generate_long(
    decoder: Decoder,
    num_frames: int,
    *,
    window: int,
    stride: int,
    branches: Callable[[int, int], Sequence[CFGBranch]],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    progress: ProgressFn | None = None,
) -> Tensor:
    """Return codes (B, K, T) of T = `num_frames`, B = len(`seeds`): one sequence without a seam.

    `window` and `stride` are those of `plan_windows`. `branches` is called for each window in turn, with its `start`
    and `end`; `seeds` has one for each piece; `progress` gets the fraction of all frames.
    """
    parts: list[Tensor] = []
    for index, (start, end, prompt) in enumerate(plan_windows(num_frames, window, stride)):
        codes = decoder.generate(
            branches(start, end),
            end - start,
            sampling=sampling,
            seeds=[window_seed(seed, index) for seed in seeds],
            prompt=torch.cat(parts, dim=-1)[..., start:] if prompt else None,
            progress=progress and sub_progress(progress, (start + prompt) / num_frames, end / num_frames),
        )
        parts.append(codes[..., prompt:])
    return torch.cat(parts, dim=-1)
