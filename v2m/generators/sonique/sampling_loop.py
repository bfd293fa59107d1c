"""Windowed diffusion sampling: the latents of a piece, window by window, each inpainted into what is known beside it.

B pieces, C latent channels, T latent frames of a piece, L of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from v2m.core.progress import sub_progress
from v2m.core.types import ProgressFn
from v2m.generators.sonique.denoiser import Velocity, inpainting_denoiser, velocity_denoiser
from v2m.generators.sonique.options import DiffusionSampling
from v2m.generators.sonique.samplers import NoiseFn, SolverContext, exponential_sigmas, sample
from v2m.generators.sonique.windows import Window
from v2m.models.inference.windows import window_seed


@dataclass(frozen=True)
class WindowedSampling:
    """Plan of the windows and of their sampling.

    Args:
        windows: In the order of sampling.
        window_frames: L.
        latents: (C, T), known where `source_mask` is set, arbitrary elsewhere.
        source_mask: (T,) bool, the frames that stay as they are.
        melody: (C, T) to start from, or None to start from noise.
        init_sigma: σ of the noise added to the melody.
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
    plan: WindowedSampling, seeds: Sequence[int], velocity: Callable[[Window], Velocity], progress: ProgressFn
) -> Tensor:
    """Sample latents (B, C, T), one piece for each of `seeds`; no two windows or pieces share their noise.

    Args:
        plan: The windows and what is known.
        seeds: The same seed gives the same piece, alone or in a batch.
        velocity: The model, conditioned on a window.
        progress: Receives the share of all steps done.
    """
    latents, known = plan.latents.expand(len(seeds), -1, -1).clone(), plan.source_mask.clone()
    for index, window in enumerate(plan.windows):
        noise = _noise_source([window_seed(seed, index) for seed in seeds], latents, plan.window_frames)
        init_noise, (sigmas, init) = noise(), _initial_state(plan, window)
        denoise = velocity_denoiser(velocity(window))
        window_known = _slice_padded(known, window.start, plan.window_frames)
        if window_known.any():
            source = _slice_padded(latents, window.start, plan.window_frames)
            denoise = inpainting_denoiser(denoise, source, window_known, init_noise)
        part = sub_progress(progress, index / len(plan.windows), (index + 1) / len(plan.windows))
        x = sample(plan.sampling.sampler, SolverContext(denoise, noise, part), init + sigmas[0] * init_noise, sigmas)
        output = slice(window.output_start, window.output_end)
        latents[..., output] = x[..., output.start - window.start : output.stop - window.start]
        known[output] = True
    return latents


def _initial_state(plan: WindowedSampling, window: Window) -> tuple[list[float], Tensor | float]:
    """σ of each step, and the latents that noise of the first σ is added to."""
    sampling = plan.sampling
    if plan.melody is None:
        return exponential_sigmas(sampling.steps, sampling.sigma_min, sampling.sigma_max), 0.0
    sigmas = exponential_sigmas(sampling.steps, sampling.sigma_min, plan.init_sigma)
    return sigmas, _slice_padded(plan.melody, window.start, plan.window_frames)


def _noise_source(seeds: Sequence[int], latents: Tensor, frames: int) -> NoiseFn:
    """Draws of (B, C, `frames`) from a generator per piece, on the CPU: the same on every device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        shape = (latents.shape[1], frames)
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(latents.device)

    return noise


def _slice_padded(x: Tensor, start: int, frames: int) -> Tensor:
    """`frames` of the last axis from `start` on; zeros beyond the end."""
    x = x[..., start : start + frames]
    return pad(x, (0, frames - x.shape[-1]))
