"""Music longer than a language model's window: windows that overlap, each going on from the codes of the one before.

All lengths and places are codec frames. B batch, K codebooks, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from v2m.core.progress import sub_progress
from v2m.core.types import ProgressFn, SamplingConfig
from v2m.models.music_model import CFGBranch


class Window(NamedTuple):
    """Frames `begin` to `end`, of which the first `prompt` stand already when it is written."""

    start: int
    end: int
    prompt: int


class CodeGenerator(Protocol):
    """What `v2m.models.inference.decoder.Decoder` does."""

    def generate(
        self,
        branches: Sequence[CFGBranch],
        num_frames: int,
        *,
        sampling: SamplingConfig,
        seeds: Sequence[int],
        prompt: Tensor | None = None,
        progress: ProgressFn | None = None,
    ) -> Tensor: ...


def plan_windows(num_frames: int, window: int, stride: int) -> list[Window]:
    """Windows that together cover `frames`, at least one, each beginning `stride` after the one before it.

    The last is moved back so that it ends with the music: it is as long as the others and hears more of what went
    before. Music shorter than a window is a single shorter one.
    """
    assert 0 < stride < window, f"a stride of {stride} frames leaves no overlap in windows of {window}"
    assert num_frames > 0, "there is nothing to write"
    found = [Window(0, min(num_frames, window), 0)]
    while (written := found[-1].end) < num_frames:
        begin = min(found[-1].start + stride, num_frames - window)
        found.append(Window(begin, begin + window, written - begin))
    return found


def window_seed(seed: int, number: int) -> int:
    """What the noise of window `number` of a piece begins with: no two windows or pieces share theirs."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generate_long(
    decoder: CodeGenerator,
    num_frames: int,
    *,
    window: int,
    stride: int,
    branches: Callable[[int, int], Sequence[CFGBranch]],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    progress: ProgressFn | None = None,
) -> Tensor:
    """Codes (B, K, T) of `frames` = T frames, B = len(`seeds`): one sequence without a seam.

    Args:
        decoder: Writes a window.
        frames: T.
        window, stride: As in `plan`.
        branches: What the frames from `begin` to `end` are conditioned on; asked for each window in turn.
        sampling: How codes are drawn.
        seeds: Of each piece.
        progress: Told how much of all frames is there.
    """
    written: list[Tensor] = []
    for number, (begin, end, prompt) in enumerate(plan_windows(num_frames, window, stride)):
        before = torch.cat(written, dim=-1)[..., begin:] if prompt else None
        codes = decoder.generate(
            branches(begin, end),
            end - begin,
            sampling=sampling,
            seeds=[window_seed(seed, number) for seed in seeds],
            prompt=before,
            progress=None
            if progress is None
            else sub_progress(progress, (begin + prompt) / num_frames, end / num_frames),
        )
        written.append(codes[..., prompt:])
    return torch.cat(written, dim=-1)
