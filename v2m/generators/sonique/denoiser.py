"""The denoiser that a sampler calls: the U-Net with classifier-free guidance and, for inpainting, known frames.

B pieces, C latent channels, L latent frames, S condition tokens, D their dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from v2m.generators.sonique.samplers import Denoise
from v2m.generators.sonique.unet import UNet
from v2m.models.conditioning import Condition

Velocity = Callable[[Tensor, Tensor], Tensor]


class CFGCondition(NamedTuple):
    """Positive and negative condition (1, S, D), the guidance scale, and the share of its rescaling, 0 to 1."""

    positive: Condition
    negative: Condition | None
    cfg_scale: float
    cfg_rescale: float


def cfg_velocity(unet: UNet, condition: CFGCondition) -> Velocity:
    """Make the guided velocity (B, C, L) float32 of a noisy latent at a time (B,).

    Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022); rescaled over the channels after Lin et al., "Common
    Diffusion Noise Schedules and Sample Steps are Flawed" (2023). As in training, the null condition is learned tokens
    under the mask of the positive one; they also fill in for masked tokens of the negative one.
    """
    tokens, mask, _ = condition.positive
    negative = unet.null_tokens[None, : tokens.shape[1]].to(tokens)
    if condition.negative is not None:
        negative = torch.where(condition.negative.mask[..., None], condition.negative.tokens, negative)

    def unguided(x: Tensor, time: Tensor) -> Tensor:
        return unet(x, time, tokens.expand(len(x), -1, -1), mask.expand(len(x), -1)).float()

    def guided(x: Tensor, time: Tensor) -> Tensor:
        both = torch.cat([tokens.expand(len(x), -1, -1), negative.expand(len(x), -1, -1)])
        velocities = unet(torch.cat([x, x]), torch.cat([time, time]), both, mask.expand(2 * len(x), -1))
        cond, uncond = velocities.float().chunk(2)
        out = uncond + condition.cfg_scale * (cond - uncond)
        level = cond.std(dim=1, keepdim=True) / out.std(dim=1, keepdim=True)
        return out * (condition.cfg_rescale * level + 1 - condition.cfg_rescale)

    return unguided if condition.cfg_scale == 1 else guided


def velocity_denoiser(velocity: Velocity) -> Denoise:
    """Make the denoiser of a v-prediction model with a cosine schedule, for latents of variance 1.

    Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (2022). The model's time is
    2/π · arctan σ, its input x / √(1 + σ²).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        scale = math.hypot(sigma, 1.0)
        time = torch.full((len(x),), 2 / math.pi * math.atan(sigma), device=x.device)
        return x / scale**2 - velocity(x / scale, time) * (sigma / scale)

    return denoise


def inpainting_denoiser(denoise: Denoise, source: Tensor, source_mask: Tensor, noise: Tensor) -> Denoise:
    """Make a denoiser that keeps known frames: the model gets them with noise of the same σ as the rest.

    Args:
        denoise: As of `velocity_denoiser`.
        source: (B, C, L), clean.
        source_mask: (L,) bool, the frames of it that are known.
        noise: (B, C, L), of variance 1.
    """

    def inpaint(x: Tensor, sigma: float) -> Tensor:
        x = torch.where(source_mask, source + sigma * noise, x)
        return torch.where(source_mask, source, denoise(x, sigma))

    return inpaint
