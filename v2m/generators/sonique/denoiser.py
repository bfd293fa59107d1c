"""What the sampler asks of the model: the clean latent in a noisy one, guided by words, with what is to be kept in it.

B pieces, C latent channels, L latent frames, S condition tokens, D their width.
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
    """The words (1, S, D) that lead, those that are led away from, how strongly, and how much of that is rescaled."""

    positive: Condition
    negative: Condition | None
    cfg_scale: float
    cfg_rescale: float


def cfg_velocity(unet: UNet, condition: CFGCondition) -> Velocity:
    """The velocity (B, C, L) float32 of a noisy latent at a time (B,).

    Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022); rescaled over the channels after Lin et al., "Common
    Diffusion Noise Schedules and Sample Steps are Flawed" (2023). As in training, what stands for no words is learned
    tokens under the mask of the wanted ones; they also stand where the unwanted words have none.
    """
    tokens, mask, _ = condition.positive
    without = unet.null_tokens[None, : tokens.shape[1]].to(tokens)
    if condition.negative is not None:
        without = torch.where(condition.negative.mask[..., None], condition.negative.tokens, without)

    def plain(x: Tensor, time: Tensor) -> Tensor:
        return unet(x, time, tokens.expand(len(x), -1, -1), mask.expand(len(x), -1)).float()

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        both = torch.cat([tokens.expand(len(x), -1, -1), without.expand(len(x), -1, -1)])
        found = unet(torch.cat([x, x]), torch.cat([time, time]), both, mask.expand(2 * len(x), -1))
        towards, away = found.float().chunk(2)
        led = away + condition.cfg_scale * (towards - away)
        level = towards.std(dim=1, keepdim=True) / led.std(dim=1, keepdim=True)
        return led * (condition.cfg_rescale * level + 1 - condition.cfg_rescale)

    return plain if condition.cfg_scale == 1 else velocity


def velocity_denoiser(velocity: Velocity) -> Denoise:
    """Of a model that gives velocities of a cosine schedule (Salimans and Ho, "Progressive Distillation for Fast
    Sampling of Diffusion Models", 2022), for latents of variance 1 with noise of σ added."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        scale = math.hypot(sigma, 1.0)
        time = torch.full((len(x),), 2 / math.pi * math.atan(sigma), device=x.device)
        return x / scale**2 - velocity(x / scale, time) * (sigma / scale)

    return denoise


def inpainting_denoiser(denoise: Denoise, source: Tensor, source_mask: Tensor, noise: Tensor) -> Denoise:
    """The same where some frames are known: the model is shown them with as much noise as the rest has, and what it
    takes them for does not count.

    Args:
        denoise: As of `denoiser`.
        kept: (B, C, L), clean.
        keep: (L,) bool, which frames of it are known.
        noise: (B, C, L), of variance 1.
    """

    def denoised(x: Tensor, sigma: float) -> Tensor:
        shown = torch.where(source_mask, source + sigma * noise, x)
        return torch.where(source_mask, source, denoise(shown, sigma))

    return denoised
