"""Diffusion samplers, as in k-diffusion: `SAMPLERS` has them by the names of SONIQUE's interface.

x is the noisy latent, σ its noise in standard deviations of the latents, D(x, σ) the model's estimate of the clean
latent ("denoised"). Samplers integrate dx/dσ = (x − D) / σ (Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models", 2022). The DPM solvers work in t = −ln σ, where the linear part of the equation is
solved exactly (Lu et al., "DPM-Solver", 2022, and "DPM-Solver++", 2022). Arithmetic on σ is in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from torch import Tensor

from v2m.core.types import ProgressFn
from v2m.generators.options import SamplerName

Denoise = Callable[[Tensor, float], Tensor]
NoiseFn = Callable[[], Tensor]  # standard normal, of the shape of x, new at each call
LMS_ORDER = 4


class SolverContext(NamedTuple):
    """The model, the source of noise, and the receiver of the share of steps done."""

    denoise: Denoise
    noise: NoiseFn
    progress: ProgressFn


SampleFn = Callable[[SolverContext, Tensor, Sequence[float]], Tensor]
StepFn = Callable[[SolverContext, Tensor, Tensor, float, float], Tensor]


def exponential_sigmas(steps: int, sigma_min: float, sigma_max: float) -> list[float]:
    """`steps` values of σ, evenly spaced in ln σ, and a final 0; one value where σ_min is not below σ_max."""
    if sigma_min >= sigma_max:
        return [sigma_max, 0.0]
    return [*np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), steps)).tolist(), 0.0]


def _single_step(step: StepFn) -> SampleFn:
    """Make a sampler of `step(context, x, denoised, sigma, sigma_next)`, for σ_next > 0."""

    def run(context: SolverContext, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            denoised = context.denoise(x, sigma)
            x = denoised if sigma_next == 0 else step(context, x, denoised, sigma, sigma_next)
            context.progress((index + 1) / (len(sigmas) - 1))
        return x

    return run


@_single_step
def sample_heun(context: SolverContext, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Heun's method, algorithm 2 of Karras et al.: the mean of the slopes at both ends."""
    d = (x - denoised) / sigma
    x_2 = x + (sigma_next - sigma) * d
    return x + (sigma_next - sigma) / 2 * (d + (x_2 - context.denoise(x_2, sigma_next)) / sigma_next)


@_single_step
def sample_dpm_2(context: SolverContext, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """DPM-Solver-2 (Lu et al., algorithm 1, r = ½): the slope at the geometric mean of both σ."""
    sigma_mid = math.sqrt(sigma * sigma_next)
    x_2 = x + (sigma_mid - sigma) / sigma * (x - denoised)
    return x + (sigma_next - sigma) / sigma_mid * (x_2 - context.denoise(x_2, sigma_mid))


@_single_step
def sample_dpmpp_2s_ancestral(
    context: SolverContext, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float
) -> Tensor:
    """DPM-Solver++(2S) to σ_down, then new noise of σ_up, where σ_down² + σ_up² = σ_next²."""
    sigma_down = sigma_next**2 / sigma
    sigma_up = math.sqrt(sigma_next**2 - sigma_down**2)
    sigma_mid = math.sqrt(sigma * sigma_down)
    x_2 = _lerp(denoised, x, sigma_mid / sigma)
    x = _lerp(context.denoise(x_2, sigma_mid), x, sigma_down / sigma)
    return x + sigma_up * context.noise()


def sample_lms(context: SolverContext, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Linear multistep (Adams–Bashforth) of order 4: integrates the polynomial through the last slopes."""
    slopes: list[Tensor] = []  # newest first
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        slopes = [(x - context.denoise(x, sigma)) / sigma, *slopes[: LMS_ORDER - 1]]
        nodes = sigmas[index - len(slopes) + 1 : index + 1][::-1]
        for slope, coefficient in zip(slopes, _lms_coefficients(nodes, sigma, sigma_next), strict=True):
            x = x + coefficient * slope
        context.progress((index + 1) / (len(sigmas) - 1))
    return x


def _lms_coefficients(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals from `start` to `end` of the Lagrange polynomials of `nodes`."""
    coefficients = []
    for node in nodes:
        roots = [root for root in nodes if root != node]
        integral = (Polynomial.fromroots(roots) if roots else Polynomial([1.0])).integ()
        coefficients.append(float(integral(end) - integral(start)) / math.prod(node - root for root in roots))
    return coefficients


def _dpmpp_sde(order: int) -> SampleFn:
    """Make a sampler by SDE-DPM-Solver++ (multistep), with η = 1: all removed noise is drawn anew."""

    def run(context: SolverContext, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        history: list[tuple[Tensor, float]] = []  # (denoised, h of the step that followed), newest first
        for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            denoised = context.denoise(x, sigma)
            if sigma_next == 0:
                x = denoised
            else:
                h = math.log(sigma / sigma_next)
                x = _lerp(denoised, x, math.exp(-2 * h))
                noise_scale = sigma_next * math.sqrt(-math.expm1(-2 * h))
                x = x + _higher_order_term(order, denoised, history, h) + noise_scale * context.noise()
                history = [(denoised, h), *history[: order - 2]]
            context.progress((index + 1) / (len(sigmas) - 1))
        return x

    return run


def _higher_order_term(
    order: int, denoised: Tensor, history: Sequence[tuple[Tensor, float]], h: float
) -> Tensor | float:
    """The correction to a step that takes `denoised` for constant, from its finite differences d1 and d2.

    Order 2: (1 − e^(−2h)) / 2 · d1. Order 3: φ₂ · d1 − φ₃ · d2, with φ₂ = (e^(−2h) − 1) / 2h + 1, φ₃ = φ₂ / 2h − ½.
    """
    if not history:
        return 0.0
    (denoised_1, h_1), eta_h = history[0], 2 * h
    d1_0 = (denoised - denoised_1) * (h / h_1)
    if order == 2:
        return -math.expm1(-eta_h) / 2 * d1_0
    phi_2 = math.expm1(-eta_h) / eta_h + 1
    if len(history) < 2:
        return phi_2 * d1_0
    denoised_2, h_2 = history[1]
    d1_1 = (denoised_1 - denoised_2) * (h / h_2)
    r_0, r_1 = h_1 / h, h_2 / h
    d2 = (d1_0 - d1_1) / (r_0 + r_1)
    phi_3 = phi_2 / eta_h - 0.5
    return phi_2 * (d1_0 + d2 * r_0) - phi_3 * d2


def sample_dpm_fast(context: SolverContext, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver-fast: one model call per step, in solver steps of order 3 and a rest of lower order.

    Ends at the smallest σ, not at 0.
    """
    calls, (t_start, t_end) = len(sigmas) - 1, (-math.log(sigmas[0]), -math.log(sigmas[-2]))
    if t_start == t_end:  # a single step
        return context.denoise(x, sigmas[0])
    count = calls // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if calls % 3 == 0 else [3] * (count - 1) + [calls % 3]
    times = np.linspace(t_start, t_end, count + 1).tolist()
    for index, order in enumerate(orders):
        x = _dpm_solver_step(context.denoise, x, times[index], times[index + 1], order)
        context.progress((index + 1) / len(orders))
    return x


def _dpm_solver_step(denoise: Denoise, x: Tensor, t: float, t_next: float, order: int) -> Tensor:
    """One step of DPM-Solver-1, -2 (algorithm 1, r = ½) or -3 (algorithm 2, r₁ = ⅓, r₂ = ⅔)."""
    h = t_next - t

    def eps(x: Tensor, t: float) -> Tensor:
        """The model's estimate of the noise in x."""
        sigma = math.exp(-t)
        return (x - denoise(x, sigma)) / sigma

    def coefficients(r: float) -> tuple[float, float, float]:
        """σ at t + rh, and rh · φ₁(rh) and rh · φ₂(rh) of the exponential integrator."""
        rh = r * h
        return math.exp(-(t + rh)), math.expm1(rh), math.expm1(rh) / rh - 1

    eps_0 = eps(x, t)
    sigma_next, phi_1, phi_2 = coefficients(1.0)
    if order == 1:
        return x - sigma_next * phi_1 * eps_0
    if order == 2:
        sigma_1, phi_11, _ = coefficients(1 / 2)
        eps_1 = eps(x - sigma_1 * phi_11 * eps_0, t + h / 2)
        return x - sigma_next * phi_1 * eps_1
    sigma_1, phi_11, _ = coefficients(1 / 3)
    d1 = eps(x - sigma_1 * phi_11 * eps_0, t + h / 3) - eps_0
    sigma_2, phi_12, phi_22 = coefficients(2 / 3)
    d2 = eps(x - sigma_2 * phi_12 * eps_0 - sigma_2 * 2 * phi_22 * d1, t + 2 * h / 3) - eps_0
    return x - sigma_next * phi_1 * eps_0 - sigma_next * 3 / 2 * phi_2 * d2


def _lerp(denoised: Tensor, x: Tensor, weight: float) -> Tensor:
    """`weight` · x + (1 − `weight`) · denoised."""
    return weight * x + (1 - weight) * denoised


SAMPLERS: dict[SamplerName, SampleFn] = {
    "dpmpp-2m-sde": _dpmpp_sde(2),
    "dpmpp-3m-sde": _dpmpp_sde(3),
    "k-heun": sample_heun,
    "k-lms": sample_lms,
    "k-dpmpp-2s-ancestral": sample_dpmpp_2s_ancestral,
    "k-dpm-2": sample_dpm_2,
    "k-dpm-fast": sample_dpm_fast,
}
