"""Samplers: order of convergence, and the spread of the data they reach."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from v2m.core.progress import ignore_progress
from v2m.generators.options import DiffusionSampling, SamplerName
from v2m.generators.sonique.samplers import SAMPLERS, SolverContext, exponential_sigmas

NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
SPREAD = 0.7  # standard deviation of the data


def denoise(x: Tensor, sigma: float) -> Tensor:
    """The best there is for normal data, for which the equation has a solution in closed form."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def solved(name: SamplerName, steps: int, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
    def draw() -> Tensor:
        assert noise is not None, f"{name} draws noise"
        return torch.randn(x.shape, generator=noise, dtype=x.dtype)

    return SAMPLERS[name](SolverContext(denoise, draw, ignore_progress), x, exponential_sigmas(steps, 0.02, 40.0))


def test_exponential_sigmas_are_log_spaced_and_end_at_zero() -> None:
    sigmas = exponential_sigmas(5, 0.01, 100.0)
    np.testing.assert_allclose(sigmas, [100, 10, 1, 0.1, 0.01, 0])


@pytest.mark.parametrize(("name", "order"), [("k-heun", 2), ("k-dpm-2", 2), ("k-lms", 3), ("k-dpm-fast", 3)])
def test_sampler_converges_at_its_theoretical_order(name: SamplerName, order: int) -> None:
    x = torch.tensor([[40.0]], dtype=torch.float64)
    ends = {"k-dpm-fast": 0.02}.get(name, 0.0)
    scale = math.hypot(SPREAD, ends) / math.hypot(SPREAD, 40.0)
    expected = 40.0 * scale
    near, far = (abs(float(solved(name, steps, x)) - expected) for steps in (60, 30))
    assert near < 2e-3
    assert near < far / 2 ** (order - 0.7)


@pytest.mark.parametrize("name", NAMES)
def test_sampled_data_has_the_expected_mean_and_std(name: SamplerName) -> None:
    random = torch.Generator().manual_seed(5)
    x = 40.0 * torch.randn(40_000, generator=random, dtype=torch.float64)
    result = solved(name, 60, x, random)
    assert float(result.std()) == pytest.approx(SPREAD, rel=0.02)
    assert float(result.mean()) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_report_progress_and_stay_finite(name: SamplerName, steps: int) -> None:
    fractions: list[float] = []

    def note(fraction: float) -> None:
        fractions.append(fraction)

    x = torch.full((3,), 40.0)
    run = SolverContext(denoise, lambda: torch.zeros(3), note)
    assert SAMPLERS[name](run, x, exponential_sigmas(steps, 0.02, 40.0)).isfinite().all()
    assert fractions == sorted(fractions)
    assert fractions[-1:] == [1.0] or (name, steps) == ("k-dpm-fast", 1)


def test_invalid_sampling_settings_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"steps 0 .*cfg_scale -1 .*cfg_rescale 2 .*sigma_min 3 must lie"):
        DiffusionSampling(steps=0, cfg_scale=-1, cfg_rescale=2, sigma_min=3, sigma_max=1)
    with pytest.raises(ValueError, match="sigma_max"):
        DiffusionSampling(sigma_max=math.nan)


def test_init_sigma_decreases_with_melody_strength() -> None:
    sampling = DiffusionSampling(sigma_min=0.03, sigma_max=30.0)
    assert [round(sampling.init_sigma(strength), 3) for strength in (0, 1 / 3, 1)] == [30.0, 3.0, 0.03]
