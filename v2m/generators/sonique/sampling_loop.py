"""The latents of pieces, window by window: what is not there yet is sampled, what stands beside it is kept.

B pieces, C latent channels, T latent frames of a piece, L of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from v2m.generators.sonique.denoiser import Velocity, denoiser, keeping
from v2m.generators.sonique.options import Denoising
from v2m.generators.sonique.samplers import Run, Told, sample, schedule
from v2m.generators.sonique.windows import Window
from v2m.models.inference.windows import window_seed


@dataclass(frozen=True)
class Work:
    """What is to be written, and how.

    Args:
        plan: The windows.
        frames: L.
        latents: (C, T), of what is kept; elsewhere it does not matter.
        keep: (T,) bool.
        melody: (C, T) to follow, or None.
        noise: σ that the melody is drowned in.
        sampling: The sampler and its settings.
    """

    plan: Sequence[Window]
    frames: int
    latents: Tensor
    keep: Tensor
    melody: Tensor | None
    noise: float
    sampling: Denoising


def write(work: Work, seeds: Sequence[int], velocity: Callable[[Window], Velocity], told: Told) -> Tensor:
    """(B, C, T): a piece for each of `seeds`, whose noise no other piece or window shares.

    Args:
        work: What is to be written.
        seeds: The same gives the same piece, alone or among others.
        velocity: What the model says in each window.
        told: Of the share that is done.
    """
    latents, keep = work.latents.expand(len(seeds), -1, -1).clone(), work.keep.clone()
    for number, window in enumerate(work.plan):
        noise = _noise([window_seed(seed, number) for seed in seeds], latents, work.frames)
        first, (sigmas, x) = noise(), _begun(work, window)
        denoise, known = denoiser(velocity(window)), _cut(keep, window.begin, work.frames)
        if known.any():
            denoise = keeping(denoise, _cut(latents, window.begin, work.frames), known, first)
        run = Run(denoise, noise, _part(told, number, len(work.plan)))
        made = sample(work.sampling.sampler, run, x + sigmas[0] * first, sigmas)
        low, high = window.first - window.begin, window.last - window.begin
        latents[..., window.first : window.last] = made[..., low:high]
        keep[window.first : window.last] = True
    return latents


def _begun(work: Work, window: Window) -> tuple[list[float], Tensor | float]:
    """The noise of each step, and what the first of it is laid over."""
    sampling = work.sampling
    if work.melody is None:
        return schedule(sampling.steps, sampling.sigma_min, sampling.sigma_max), 0.0
    return schedule(sampling.steps, sampling.sigma_min, work.noise), _cut(work.melody, window.begin, work.frames)


def _noise(seeds: Sequence[int], latents: Tensor, frames: int) -> Callable[[], Tensor]:
    """Draws (B, C, `frames`) on the CPU: the same on every device, and each piece its own."""
    random = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        shape = (latents.shape[1], frames)
        return torch.stack([torch.randn(shape, generator=each) for each in random]).to(latents.device)

    return noise


def _part(told: Told, number: int, count: int) -> Told:
    return lambda fraction: told((number + fraction) / count)


def _cut(whole: Tensor, begin: int, frames: int) -> Tensor:
    """`frames` of the last axis from `begin` on; zeros beyond the end."""
    cut = whole[..., begin : begin + frames]
    return pad(cut, (0, frames - cut.shape[-1]))
