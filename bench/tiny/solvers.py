"""The samplers of diffusion models written out in plain numbers, step by step, as their papers and k-diffusion have
them: what ours are compared with.

x holds numbers, s the noise σ of each step with 0 at the end; `clean` is a denoiser of a bent curve, so that every
order of a solver shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from v2m.generators.diffusion.samplers import Run, sample, schedule
from v2m.generators.diffusion.settings import SamplerName

Draw = Callable[[], np.ndarray]


def clean(x: np.ndarray, sigma: float) -> np.ndarray:
    return np.tanh(x / (1 + sigma)) * 0.9 + x / (1 + sigma**2) * 0.3


def heun(x: np.ndarray, s: list[float], _: Draw) -> np.ndarray:
    for i in range(len(s) - 1):
        d = (x - clean(x, s[i])) / s[i]
        guess = x + d * (s[i + 1] - s[i])
        if s[i + 1] > 0:
            d = (d + (guess - clean(guess, s[i + 1])) / s[i + 1]) / 2
        x = x + d * (s[i + 1] - s[i])
    return x


def dpm_2(x: np.ndarray, s: list[float], _: Draw) -> np.ndarray:
    for i in range(len(s) - 1):
        d = (x - clean(x, s[i])) / s[i]
        if s[i + 1] > 0:
            middle = math.exp((math.log(s[i]) + math.log(s[i + 1])) / 2)
            guess = x + d * (middle - s[i])
            d = (guess - clean(guess, middle)) / middle
        x = x + d * (s[i + 1] - s[i])
    return x


def lms(x: np.ndarray, s: list[float], _: Draw) -> np.ndarray:
    """The integrals by Gauss and Legendre, exact for the polynomials at hand."""
    past: list[np.ndarray] = []
    nodes, weights = np.polynomial.legendre.leggauss(8)
    for i in range(len(s) - 1):
        past.append((x - clean(x, s[i])) / s[i])
        order = min(i + 1, 4)
        at = (s[i + 1] - s[i]) / 2 * nodes + (s[i + 1] + s[i]) / 2
        for j in range(order):
            curve = np.ones_like(at)
            for k in range(order):
                if k != j:
                    curve *= (at - s[i - k]) / (s[i - j] - s[i - k])
            x = x + float((curve * weights).sum() * (s[i + 1] - s[i]) / 2) * past[-1 - j]
    return x


def ancestral(x: np.ndarray, s: list[float], draw: Draw) -> np.ndarray:
    for i in range(len(s) - 1):
        up = min(s[i + 1], math.sqrt(s[i + 1] ** 2 * (s[i] ** 2 - s[i + 1] ** 2) / s[i] ** 2))
        down = math.sqrt(s[i + 1] ** 2 - up**2)
        guess = clean(x, s[i])
        if down == 0:
            x = guess
            continue
        t, t_next = -math.log(s[i]), -math.log(down)
        h = t_next - t
        between = math.exp(-(t + h / 2))
        ahead = between / s[i] * x - math.expm1(-h / 2) * guess
        x = down / s[i] * x - math.expm1(-h) * clean(ahead, between) + up * draw()
    return x


def multistep_sde(x: np.ndarray, s: list[float], draw: Draw, order: int) -> np.ndarray:
    said: list[np.ndarray] = []
    lengths: list[float] = []
    for i in range(len(s) - 1):
        said.append(clean(x, s[i]))
        if s[i + 1] == 0:
            return said[-1]
        h = math.log(s[i]) - math.log(s[i + 1])
        lengths.append(h)
        x = math.exp(-2 * h) * x + (1 - math.exp(-2 * h)) * said[-1]
        if order == 2 and i > 0:
            x = x + 0.5 * (1 - math.exp(-2 * h)) * (h / lengths[-2]) * (said[-1] - said[-2])
        phi_2 = (math.exp(-2 * h) - 1) / (2 * h) + 1
        if order == 3 and i == 1:
            x = x + phi_2 * (said[-1] - said[-2]) / (lengths[-2] / h)
        if order == 3 and i > 1:
            r0, r1 = lengths[-2] / h, lengths[-3] / h
            a, b = (said[-1] - said[-2]) / r0, (said[-2] - said[-3]) / r1
            x = x + phi_2 * (a + (a - b) * r0 / (r0 + r1)) - (phi_2 / (2 * h) - 0.5) * (a - b) / (r0 + r1)
        x = x + s[i + 1] * math.sqrt(1 - math.exp(-2 * h)) * draw()
    return x


def fast(x: np.ndarray, s: list[float], _: Draw) -> np.ndarray:
    asked = len(s) - 1
    count = asked // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if asked % 3 == 0 else [3] * (count - 1) + [asked % 3]
    places = np.linspace(-math.log(s[0]), -math.log(s[-2]), count + 1)

    def seen(x: np.ndarray, t: float) -> np.ndarray:
        return (x - clean(x, math.exp(-t))) / math.exp(-t)

    for order, t, t_next in zip(orders, places[:-1], places[1:], strict=True):
        h, e = t_next - t, seen(x, t)
        if order == 1:
            x = x - math.exp(-t_next) * math.expm1(h) * e
        elif order == 2:
            r = 0.5
            u = x - math.exp(-(t + r * h)) * math.expm1(r * h) * e
            change = seen(u, t + r * h) - e
            x = x - math.exp(-t_next) * math.expm1(h) * (e + change / (2 * r))
        else:
            r1, r2 = 1 / 3, 2 / 3
            u = x - math.exp(-(t + r1 * h)) * math.expm1(r1 * h) * e
            change = seen(u, t + r1 * h) - e
            bent = math.expm1(r2 * h) / (r2 * h) - 1
            u = x - math.exp(-(t + r2 * h)) * (math.expm1(r2 * h) * e + r2 / r1 * bent * change)
            change = seen(u, t + r2 * h) - e
            x = x - math.exp(-t_next) * (math.expm1(h) * e + (math.expm1(h) / h - 1) / r2 * change)
    return x


WRITTEN_OUT: dict[SamplerName, Callable[..., np.ndarray]] = {
    "k-heun": heun,
    "k-dpm-2": dpm_2,
    "k-lms": lms,
    "k-dpmpp-2s-ancestral": ancestral,
    "dpmpp-2m-sde": lambda *given: multistep_sde(*given, order=2),
    "dpmpp-3m-sde": lambda *given: multistep_sde(*given, order=3),
    "k-dpm-fast": fast,
}


def compared(name: SamplerName, steps: int, *, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """What ours gives and what is written out, from the same noise in double precision."""
    random = np.random.default_rng(seed)
    x, noises = 20 * random.standard_normal(64), random.standard_normal((steps, 64))
    sigmas = schedule(steps, 0.05, 20.0)
    here, there = iter(noises), iter(noises)
    run = Run(
        lambda x, sigma: torch.from_numpy(clean(x.numpy(), sigma)), lambda: torch.from_numpy(next(here)), lambda _: None
    )
    wanted = WRITTEN_OUT[name](x, sigmas, lambda: next(there))
    return sample(name, run, torch.from_numpy(x), sigmas).numpy(), wanted
