"""The latents of pieces, window by window: what is not there yet is sampled, what stands beside it is kept.

B pieces, C latent channels, T latent frames of a piece, L of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from v2m.generators.sonique.denoiser import Velocity, inpainting_denoiser, velocity_denoiser
from v2m.generators.sonique.options import DiffusionSampling
from v2m.generators.sonique.samplers import Run, Told, sample, schedule
from v2m.generators.sonique.windows import Window
from v2m.models.inference.windows import window_seed


@dataclass(frozen=True)
class WindowedSampling:
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

    windows: Sequence[Window]
    window_frames: int
    latents: Tensor
    source_mask: Tensor
    melody: Tensor | None
    init_sigma: float
    sampling: DiffusionSampling


def sample_windows(
    plan: WindowedSampling, seeds: Sequence[int], velocity: Callable[[Window], Velocity], progress: Told
) -> Tensor:
    """(B, C, T): a piece for each of `seeds`, whose noise no other piece or window shares.

    Args:
        work: What is to be written.
        seeds: The same gives the same piece, alone or among others.
        velocity: What the model says in each window.
        told: Of the share that is done.
    """
    latents, keep = plan.latents.expand(len(seeds), -1, -1).clone(), plan.source_mask.clone()
    for number, window in enumerate(plan.windows):
        noise = _noise_source([window_seed(seed, number) for seed in seeds], latents, plan.window_frames)
        first, (sigmas, x) = noise(), _initial_state(plan, window)
        denoise, known = velocity_denoiser(velocity(window)), _slice_padded(keep, window.start, plan.window_frames)
        if known.any():
            denoise = inpainting_denoiser(
                denoise, _slice_padded(latents, window.start, plan.window_frames), known, first
            )
        run = Run(denoise, noise, _part(progress, number, len(plan.windows)))
        made = sample(plan.sampling.sampler, run, x + sigmas[0] * first, sigmas)
        low, high = window.output_start - window.start, window.output_end - window.start
        latents[..., window.output_start : window.output_end] = made[..., low:high]
        keep[window.output_start : window.output_end] = True
    return latents


def _initial_state(plan: WindowedSampling, window: Window) -> tuple[list[float], Tensor | float]:
    """The noise of each step, and what the first of it is laid over."""
    sampling = plan.sampling
    if plan.melody is None:
        return schedule(sampling.steps, sampling.sigma_min, sampling.sigma_max), 0.0
    return schedule(sampling.steps, sampling.sigma_min, plan.init_sigma), _slice_padded(
        plan.melody, window.start, plan.window_frames
    )


def _noise_source(seeds: Sequence[int], latents: Tensor, frames: int) -> Callable[[], Tensor]:
    """Draws (B, C, `frames`) on the CPU: the same on every device, and each piece its own."""
    random = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        shape = (latents.shape[1], frames)
        return torch.stack([torch.randn(shape, generator=each) for each in random]).to(latents.device)

    return noise


def _part(told: Told, number: int, count: int) -> Told:
    return lambda fraction: told((number + fraction) / count)


def _slice_padded(whole: Tensor, begin: int, frames: int) -> Tensor:
    """`frames` of the last axis from `begin` on; zeros beyond the end."""
    cut = whole[..., begin : begin + frames]
    return pad(cut, (0, frames - cut.shape[-1]))
