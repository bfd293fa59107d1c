"""User options of SONIQUE's diffusion sampling, checked when set. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
SamplerName = Literal[
    "dpmpp-2m-sde", "dpmpp-3m-sde", "k-heun", "k-lms", "k-dpmpp-2s-ancestral", "k-dpm-2", "k-dpm-fast"
]
MAX_STEPS = 1000


@dataclass(frozen=True)
class DiffusionSampling:
    """Sampler options. The defaults are SONIQUE's.

    Args:
        steps: Number of sampler steps; k-heun, k-dpm-2 and k-dpmpp-2s-ancestral call the model twice in each.
        cfg_scale: Classifier-free guidance scale; 1 is no guidance.
        cfg_rescale: Share of the standard deviation added by guidance that is taken back, 0 to 1.
        sampler: Name of the sampler.
        sigma_min: σ of the last step, in standard deviations of the latents.
        sigma_max: σ of the first step.
    """

    steps: int = 300
    cfg_scale: float = 6.0
    cfg_rescale: float = 0.4
    sampler: SamplerName = "dpmpp-2m-sde"
    sigma_min: float = 0.03
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        problems = [] if 1 <= self.steps <= MAX_STEPS else [f"steps {self.steps} must be 1 to {MAX_STEPS}"]
        problems += [] if 0 <= self.cfg_scale <= 100 else [f"cfg_scale {self.cfg_scale:g} must be 0 to 100"]
        problems += [] if 0 <= self.cfg_rescale <= 1 else [f"cfg_rescale {self.cfg_rescale:g} must be 0 to 1"]
        if not 0 < self.sigma_min < self.sigma_max <= 1000:
            problems.append(
                f"sigma_min {self.sigma_min:g} must lie above 0 and below sigma_max {self.sigma_max:g}, "
                "which is 1000 at most"
            )
        if problems:
            raise ValueError("; ".join(problems))

    def init_sigma(self, melody_strength: float) -> float:
        """σ of the noise added to a melody: from `sigma_max` (strength 0) to `sigma_min` (1), evenly in ln σ."""
        return self.sigma_max * (self.sigma_min / self.sigma_max) ** melody_strength
