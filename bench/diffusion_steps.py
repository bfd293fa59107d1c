"""Samplers of SONIQUE by their number of model calls: `uv run python -m bench.diffusion_steps`.

The tiny model with guidance, in float32. How far each sampler's final latents are from its own limit: samplers without
noise from Heun's method in many steps, samplers with noise from themselves in 599 steps along the same Brownian path,
whose increments over a long step are made of those over the short ones. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from bench.diffusion import relative_error
from tests.fixtures.tiny import sonique as tiny
from v2m.core.progress import ignore_progress
from v2m.generators.options import DiffusionSampling, SamplerName
from v2m.generators.sonique.packed_unet import pack_unet
from v2m.generators.sonique.samplers import SAMPLERS, Denoise, SolverContext, exponential_sigmas
from v2m.generators.sonique.windowed_sampling import CFGCondition, cfg_velocity, velocity_denoiser
from v2m.models.conditioning import Condition

PIECES = 2
LIMIT_STEPS = 599  # 598 intervals, of which each entry of NOISE_STEPS has a divisor
NOISE_STEPS = (300, 47, 27, 24, 14)
MODEL_CALLS = (300, 100, 50, 24)
WITH_NOISE: tuple[SamplerName, ...] = ("dpmpp-2m-sde", "dpmpp-3m-sde")
WITHOUT_NOISE: tuple[SamplerName, ...] = ("k-heun", "k-dpm-2", "k-lms", "k-dpm-fast")
CALLS_PER_STEP = {"k-heun": 2, "k-dpm-2": 2}


def make_denoiser(cfg_scale: float) -> Denoise:
    """Return the tiny model's denoiser under a random condition."""
    network, random = tiny.make_unet().requires_grad_(False), torch.Generator().manual_seed(5)
    pack_unet(network, torch.float32)
    sizes, rescale = network.config, DiffusionSampling().cfg_rescale
    mask = torch.arange(sizes.num_tokens)[None] < 20
    condition = Condition(torch.randn(1, sizes.num_tokens, sizes.context_dim, generator=random), mask)
    return velocity_denoiser(cfg_velocity(network, CFGCondition(condition, None, cfg_scale, rescale)))


def brownian_increments(sigmas: Sequence[float], fine_sigmas: Sequence[float], shape: torch.Size) -> Iterator[Tensor]:
    """Yield the noise of each step, of variance 1, made of that of the steps of `fine_sigmas` in it.

    A step from σ to σ' keeps (σ' / σ)² of the noise before it and adds σ'² (1 − (σ' / σ)²) in variance.
    """
    random, ratio = torch.Generator().manual_seed(9), (len(fine_sigmas) - 2) // (len(sigmas) - 2)
    fine_steps = pairwise(fine_sigmas)
    for sigma, sigma_next in pairwise(sigmas[:-1]):
        noise = torch.zeros(shape)
        for _ in range(ratio):
            start, end = next(fine_steps)
            scale = end * math.sqrt(1 - (end / start) ** 2)
            noise = (end / start) ** 2 * noise + scale * torch.randn(shape, generator=random)
        yield noise / (sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))


def sample(denoise: Denoise, name: SamplerName, steps: int) -> Tensor:
    """Return the final latents of `PIECES` pieces from one start."""
    defaults, random = DiffusionSampling(), torch.Generator().manual_seed(7)
    sigmas, fine = (exponential_sigmas(count, defaults.sigma_min, defaults.sigma_max) for count in (steps, LIMIT_STEPS))
    x = torch.randn(PIECES, tiny.LATENT, tiny.FRAMES, generator=random)
    noise = brownian_increments(sigmas, fine, x.shape)
    return SAMPLERS[name](SolverContext(denoise, lambda: next(noise), ignore_progress), sigmas[0] * x, sigmas)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cfg-scale", type=float, default=DiffusionSampling().cfg_scale)
    args = parser.parse_args()
    torch.set_num_threads(1)
    denoise = make_denoiser(args.cfg_scale)
    errors: dict[str, dict[int, float]] = {}
    limits: dict[SamplerName, Tensor] = {}
    for name in WITH_NOISE:
        limits[name] = sample(denoise, name, LIMIT_STEPS)
        results = {steps: sample(denoise, name, steps) for steps in NOISE_STEPS}
        errors[name] = {steps: relative_error(x, limits[name]) for steps, x in results.items()}
        print(name, errors[name], flush=True)
    limit = sample(denoise, "k-heun", LIMIT_STEPS)
    for name in WITHOUT_NOISE:
        steps = {calls: calls // CALLS_PER_STEP.get(name, 1) for calls in MODEL_CALLS}
        errors[name] = {calls: relative_error(sample(denoise, name, count), limit) for calls, count in steps.items()}
        print(name, errors[name], flush=True)
    figures = {
        "cfg_scale": args.cfg_scale,
        "error_by_model_calls": {
            name: {calls: float(f"{error:.2e}") for calls, error in row.items()} for name, row in errors.items()
        },
        "limits_of_both_samplers_with_noise": float(
            f"{relative_error(limits[WITH_NOISE[1]], limits[WITH_NOISE[0]]):.2e}"
        ),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
