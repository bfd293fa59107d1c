"""Solvers of the diffusion's equation, from noise to music, by the names that SONIQUE's users know.

x is the noisy latent, σ its noise in standard deviations of the latents, D(x, σ) what the model takes the clean latent
for. The equation is dx/dσ = (x − D) / σ (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
Models", 2022); the DPM solvers work in λ = −ln σ, in which it is exponential (Lu et al., "DPM-Solver", 2022, and
"DPM-Solver++", 2022). All arithmetic on σ is in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from torch import Tensor

from v2m.generators.sonique.options import SamplerName

Denoise = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]  # standard normal, of the shape of x, new at each call
Told = Callable[[float], None]  # share of the steps that is done
MULTISTEP = 4  # order of k-lms


class Run(NamedTuple):
    """What a solver asks, draws and tells."""

    denoise: Denoise
    noise: Noise
    told: Told


def schedule(steps: int, sigma_min: float, sigma_max: float) -> list[float]:
    """`steps` values of σ that fall evenly in their logarithm, or one where there is nowhere to fall, and 0."""
    if sigma_min >= sigma_max:
        return [sigma_max, 0.0]
    return [*np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), steps)).tolist(), 0.0]


def sample(name: SamplerName, run: Run, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """What `x`, with noise of `sigmas[0]` in it, becomes along `sigmas`, the last of which is 0."""
    return _SOLVERS[name](run, x, sigmas)


def _single(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A solver that looks back at nothing; `step` goes from one σ to the next, which is not 0."""

    def solve(run: Run, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        for number, (now, then) in enumerate(pairwise(sigmas)):
            clean = run.denoise(x, now)
            x = clean if then == 0 else step(run, x, clean, now, then)
            run.told((number + 1) / (len(sigmas) - 1))
        return x

    return solve


def _heun(run: Run, x: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """Karras et al., algorithm 2: the mean of the slopes at both ends."""
    slope = (x - clean) / now
    ahead = x + (then - now) * slope
    return x + (then - now) / 2 * (slope + (ahead - run.denoise(ahead, then)) / then)


def _middle(run: Run, x: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """The slope in the middle of λ: DPM-Solver-2 as k-diffusion has it."""
    half = math.sqrt(now * then)
    ahead = x + (half - now) / now * (x - clean)
    return x + (then - now) / half * (ahead - run.denoise(ahead, half))


def _ancestral(run: Run, x: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """DPM-Solver++(2S) further down than asked, and back up with new noise."""
    down = then**2 / now
    half = math.sqrt(now * down)
    ahead = _towards(run.denoise(_towards(clean, x, half / now), half), x, down / now)
    return ahead + math.sqrt(then**2 - down**2) * run.noise()


def _towards(clean: Tensor, x: Tensor, left: float) -> Tensor:
    """`x` with `left` of its distance from `clean`."""
    return left * x + (1 - left) * clean


def _multistep(run: Run, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Adams and Bashforth's method: the polynomial through the last slopes, integrated."""
    slopes: list[Tensor] = []
    for number, (now, then) in enumerate(pairwise(sigmas)):
        slopes = [(x - run.denoise(x, now)) / now, *slopes[: MULTISTEP - 1]]
        places = sigmas[number - len(slopes) + 1 : number + 1][::-1]
        for slope, weight in zip(slopes, _weights(places, now, then), strict=True):
            x = x + weight * slope
        run.told((number + 1) / (len(sigmas) - 1))
    return x


def _weights(places: Sequence[float], begin: float, end: float) -> list[float]:
    """The integrals from `begin` to `end` of the polynomials that are 1 at one of `places` and 0 at the others."""
    found = []
    for place in places:
        others = [each for each in places if each != place]
        whole = (Polynomial.fromroots(others) if others else Polynomial([1.0])).integ()
        found.append(float(whole(end) - whole(begin)) / math.prod(place - each for each in others))
    return found


def _stochastic(order: int) -> Callable[..., Tensor]:
    """DPM-Solver++ of that order for the stochastic equation, with as much new noise as it takes away (η = 1)."""

    def solve(run: Run, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        past: list[tuple[Tensor, float]] = []  # what the model said, and how long the step after it was; newest first
        for number, (now, then) in enumerate(pairwise(sigmas)):
            clean = run.denoise(x, now)
            if then == 0:
                x = clean
            else:
                step = math.log(now / then)
                x = _towards(clean, x, math.exp(-2 * step))
                x = x + _bend(order, clean, past, step) + then * math.sqrt(-math.expm1(-2 * step)) * run.noise()
                past = [(clean, step), *past[: order - 2]]
            run.told((number + 1) / (len(sigmas) - 1))
        return x

    return solve


def _bend(order: int, clean: Tensor, past: Sequence[tuple[Tensor, float]], step: float) -> Tensor | float:
    """What the change of `clean` over the last steps adds to a step that takes it for constant."""
    if not past:
        return 0.0
    (before, last), length = past[0], 2 * step
    slope = (clean - before) * (step / last)
    if order == 2:
        return -math.expm1(-length) / 2 * slope
    first = math.expm1(-length) / length + 1
    if len(past) < 2:
        return first * slope
    earlier, longer = past[1]
    other = (before - earlier) * (step / longer)
    near, far = last / step, longer / step
    curve = (slope - other) / (near + far)
    return first * (slope + curve * near) - (first / length - 0.5) * curve


def _fast(run: Run, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver-fast: steps of order 3, which ask three times each, and a rest; ends at the smallest σ, not at 0."""
    asked, (begin, end) = len(sigmas) - 1, (-math.log(sigmas[0]), -math.log(sigmas[-2]))
    if begin == end:  # a single step
        return run.denoise(x, sigmas[0])
    count = asked // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if asked % 3 == 0 else [3] * (count - 1) + [asked % 3]
    places = np.linspace(begin, end, count + 1).tolist()
    for number, order in enumerate(orders):
        x = _exponential(run.denoise, x, places[number], places[number + 1], order)
        run.told((number + 1) / len(orders))
    return x


def _exponential(denoise: Denoise, x: Tensor, begin: float, end: float, order: int) -> Tensor:
    """One step of DPM-Solver-1, -2 (r = ½) or -3 (r = ⅓, ⅔) in λ."""
    step = end - begin

    def at(x: Tensor, place: float) -> Tensor:
        """The noise in x, as the model sees it."""
        sigma = math.exp(-place)
        return (x - denoise(x, sigma)) / sigma

    def to(share: float) -> tuple[float, float, float]:
        """σ there, and the exponential functions φ₁ and φ₂ of that part of the step, each times its length."""
        part = share * step
        return math.exp(-(begin + part)), math.expm1(part), math.expm1(part) / part - 1

    first = at(x, begin)
    sigma, whole, bent = to(1.0)
    if order == 1:
        return x - sigma * whole * first
    if order == 2:
        near, grown, _ = to(1 / 2)
        second = at(x - near * grown * first, begin + step / 2)
        return x - sigma * whole * second
    near, grown, _ = to(1 / 3)
    change = at(x - near * grown * first, begin + step / 3) - first
    far, grown, curved = to(2 / 3)
    change = at(x - far * grown * first - far * 2 * curved * change, begin + 2 * step / 3) - first
    return x - sigma * whole * first - sigma * 3 / 2 * bent * change


_SOLVERS: dict[SamplerName, Any] = {
    "dpmpp-2m-sde": _stochastic(2),
    "dpmpp-3m-sde": _stochastic(3),
    "k-heun": _single(_heun),
    "k-lms": _multistep,
    "k-dpmpp-2s-ancestral": _single(_ancestral),
    "k-dpm-2": _single(_middle),
    "k-dpm-fast": _fast,
}
