"""Windowed diffusion sampling: latents window by window, each inpainted into what is known beside it.

B pieces, C latent channels, T latent frames of a piece, L of a window, S condition tokens, D their dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from v2m.core.progress import sub_progress
from v2m.core.types import ProgressFn
from v2m.generators.options import DiffusionSampling
from v2m.generators.sonique.samplers import SAMPLERS, Denoise, NoiseFn, SolverContext, exponential_sigmas
from v2m.generators.sonique.unet import UNet
from v2m.models.conditioning import Condition
from v2m.models.inference.windows import window_seed

Velocity = Callable[[Tensor, Tensor], Tensor]


class Window(NamedTuple):
    """A window that begins at frame `start`, of which the frames `output_start` to `output_end` are used."""

    start: int
    output_start: int
    output_end: int


def plan_windows(range_start: int, range_end: int, *, total: int, window: int, overlap: int) -> list[Window]:
    """Plan windows whose outputs cover the frames `range_start` to `range_end` of a piece of `total`.

    Each window continues from known music before or behind it:

        piece     ..known..|------ range ------|..known..
        window 1     [overlap|--output--]
        window 2             [overlap|--output--|overlap]

    A window includes at least `overlap` known frames on either side, where there are as many; where there is room for
    more, both sides get half of it. The window of a piece shorter than `window` extends beyond its end.
    """
    assert 0 <= range_start < range_end <= total, f"nothing to write from {range_start} to {range_end} of {total}"
    assert 0 <= overlap <= window // 3, f"an overlap of {overlap} is more than a third of a window of {window}"
    windows: list[Window] = []
    overlap_after = min(overlap, total - range_end)
    while range_start < range_end:
        overlap_before, remaining = min(overlap, range_start), range_end - range_start
        if remaining <= window - overlap_before - overlap_after:
            room = window - remaining
            start = min(max(range_start - max(room // 2, overlap_before), 0), max(total - window, 0))
            windows.append(Window(start, range_start, range_end))
            break
        start, end = range_start - overlap_before, range_start - overlap_before + window
        end = end if end < range_end else range_start + remaining // 2  # so that the last window, too, has both sides
        windows.append(Window(start, range_start, end))
        range_start = end
    return windows


@dataclass(frozen=True)
class WindowedSampling:
    """Plan of the windows and of their sampling."""

    windows: Sequence[Window]  # in the order of sampling
    window_frames: int  # L
    latents: Tensor  # (C, T), known where `source_mask` is set, arbitrary elsewhere
    source_mask: Tensor  # (T,) bool, the frames that stay as they are
    melody: Tensor | None  # (C, T) to start from; None starts from noise
    sigma_max: float  # σ of the first step, whose noise is added to the melody
    sampling: DiffusionSampling


def sample_windows(
    plan: WindowedSampling, seeds: Sequence[int], velocity: Callable[[Window], Velocity], progress: ProgressFn
) -> Tensor:
    """Sample latents (B, C, T), one piece for each of `seeds`; no two windows or pieces share noise.

    The same seed gives the same piece, alone or in a batch. `velocity` makes the model, conditioned on a window.
    """
    latents, known = plan.latents.expand(len(seeds), -1, -1).clone(), plan.source_mask.clone()
    sampler = SAMPLERS[plan.sampling.sampler]
    sigmas = exponential_sigmas(plan.sampling.steps, plan.sampling.sigma_min, plan.sigma_max)
    for index, window in enumerate(plan.windows):
        noise = _noise_source([window_seed(seed, index) for seed in seeds], latents, plan.window_frames)
        init_noise, denoise = noise(), velocity_denoiser(velocity(window))
        window_known = _slice_padded(known, window.start, plan.window_frames)
        if window_known.any():
            source = _slice_padded(latents, window.start, plan.window_frames)
            denoise = inpainting_denoiser(denoise, source, window_known, init_noise)
        melody = 0.0 if plan.melody is None else _slice_padded(plan.melody, window.start, plan.window_frames)
        part = sub_progress(progress, index / len(plan.windows), (index + 1) / len(plan.windows))
        x = sampler(SolverContext(denoise, noise, part), melody + sigmas[0] * init_noise, sigmas)
        output = slice(window.output_start, window.output_end)
        latents[..., output] = x[..., output.start - window.start : output.stop - window.start]
        known[output] = True
    return latents


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


class CFGCondition(NamedTuple):
    """Positive and negative condition (1, S, D), guidance scale, and share of its rescaling, 0 to 1."""

    positive: Condition
    negative: Condition | None
    cfg_scale: float
    cfg_rescale: float


def cfg_velocity(unet: UNet, condition: CFGCondition) -> Velocity:
    """Make the guided velocity (B, C, L) float32 of a noisy latent at a time (1 or B,).

    Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022); rescaled over the channels after Lin et al., "Common
    Diffusion Noise Schedules and Sample Steps are Flawed" (2023). As in training, the null condition is learned tokens
    under the mask of the positive one; they also fill in for masked tokens of the negative one.
    """
    tokens, mask, _ = condition.positive
    negative = unet.null_tokens[None, : tokens.shape[1]].to(tokens)
    if condition.negative is not None:
        negative = torch.where(condition.negative.mask[..., None], condition.negative.tokens, negative)

    guidance = condition.cfg_scale != 1
    context = torch.cat([tokens, negative]) if guidance else tokens
    cross_kv = unet.project_context(context, mask.expand(len(context), -1))

    def unguided(x: Tensor, time: Tensor) -> Tensor:
        return unet.velocity(x, time, cross_kv, len(x)).float()

    def guided(x: Tensor, time: Tensor) -> Tensor:
        cond, uncond = unet.velocity(x, time, cross_kv, 2 * len(x)).float().chunk(2)
        out = uncond + condition.cfg_scale * (cond - uncond)
        level = cond.std(dim=1, keepdim=True) / out.std(dim=1, keepdim=True)
        return out * (condition.cfg_rescale * level + 1 - condition.cfg_rescale)

    return guided if guidance else unguided


def velocity_denoiser(velocity: Velocity) -> Denoise:
    """Make the denoiser of a v-prediction model with a cosine schedule, for latents of variance 1.

    Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (2022). The model's time is
    2/π · arctan σ, its input x / √(1 + σ²).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        scale = math.hypot(sigma, 1.0)
        time = torch.full((1,), 2 / math.pi * math.atan(sigma), device=x.device)
        return x / scale**2 - velocity(x / scale, time) * (sigma / scale)

    return denoise


def inpainting_denoiser(denoise: Denoise, source: Tensor, source_mask: Tensor, noise: Tensor) -> Denoise:
    """Make a denoiser that keeps the frames `source_mask` (L,) of `source` (B, C, L), which is clean.

    The model gets them with `noise` (B, C, L), of variance 1, of the same σ as the rest.
    """

    def inpaint(x: Tensor, sigma: float) -> Tensor:
        x = torch.where(source_mask, source + sigma * noise, x)
        return torch.where(source_mask, source, denoise(x, sigma))

    return inpaint
