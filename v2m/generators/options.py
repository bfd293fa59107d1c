"""User options of the generators, checked when they are set. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from v2m.core.errors import UsageError
from v2m.core.types import SamplingConfig

LMPrecision = Literal["fp32", "bf16", "int8", "int4"]
DiffusionPrecision = Literal["fp32", "bf16", "fp16", "int8"]
DecoderName = Literal["encodec", "multiband"]
SamplerName = Literal[
    "dpmpp-2m-sde", "dpmpp-3m-sde", "k-heun", "k-lms", "k-dpmpp-2s-ancestral", "k-dpm-2", "k-dpm-fast"
]
MAX_STEPS = 1000


@dataclass(frozen=True)
class WindowOptions:
    """Sampling of a language model's tokens in windows; the overlap of two is the prompt of the second."""

    sampling: SamplingConfig
    window: float  # seconds
    stride: float  # seconds from one window to the next

    def check_overlap(self) -> None:
        """Raise UsageError where the windows do not overlap."""
        if not self.window >= 1:  # also refuses NaN
            raise UsageError(f"window {self.window:g} s must be 1 or more")
        longest = self.window - 0.5
        if not 0.5 <= self.stride <= longest:
            raise UsageError(f"stride {self.stride:g} s must lie between 0.5 and {longest:g}, so that windows overlap")

    def check_length(self, training_window: float) -> None:
        """Raise UsageError where the windows are longer than the seconds that a model was trained on."""
        if self.window > training_window:
            raise UsageError(
                f"window {self.window:g} s is longer than the {training_window:g} s that the model was trained on: "
                f"give window {training_window:g} and a smaller stride"
            )


@dataclass(frozen=True)
class MagnetSampling:
    """Sampling of MAGNeT's codes, one codebook after the other. The defaults are audiocraft's.

    Args:
        temperature: At the first step of each codebook, from where it falls to 0; 0 takes the likeliest in all.
        top_k: Codes that may be drawn, 0 for all; it needs a `top_p` of 1.
        top_p: Share of the probability that may be drawn from, 1 for all.
        cfg_scale: Guidance scale at the first step of each codebook, when all of its codes are masked.
        min_cfg_scale: Guidance scale at the last step.
        decoding_steps: Steps of each codebook.
        span_arrangement: Whether the spans of three frames that are masked may overlap (stride1) or not.
    """

    temperature: float = 3.0
    top_k: int = 0
    top_p: float = 0.9
    cfg_scale: float = 10.0
    min_cfg_scale: float = 1.0
    decoding_steps: tuple[int, ...] = (20, 10, 10, 10)
    span_arrangement: Literal["nonoverlap", "stride1"] = "nonoverlap"

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoding_steps", tuple(self.decoding_steps))  # YAML gives a list
        names = ("temperature", "top_k", "cfg_scale", "min_cfg_scale")
        problems = [f"{name} {value:g} must be 0 or more" for name in names if not (value := getattr(self, name)) >= 0]
        problems += [] if 0 < self.top_p <= 1 else [f"top_p {self.top_p:g} must lie above 0 and up to 1 (all)"]
        problems += ["top_k has no effect unless top_p is 1"] if self.top_k and self.top_p < 1 else []
        wrong = [steps for steps in self.decoding_steps if not 1 <= steps <= MAX_STEPS]
        problems += [f"decoding_steps {wrong[0]} must be 1 to {MAX_STEPS}"] if wrong else []
        if problems:
            raise ValueError("; ".join(problems))


@dataclass(frozen=True)
class YuESampling:
    """Sampling of YuE's codes.

    Args:
        temperature: 0 takes the likeliest.
        top_k: Codes that may be drawn, 0 for all. The default is transformers', which the published script keeps.
        top_p: Share of the probability that may be drawn from, 1 for all.
        repetition_penalty: Divides the logits of codes that were drawn before.
        cfg_scale: Classifier-free guidance scale of the sections after the first; 1 is no guidance.
        first_section_cfg_scale: The same of the first section.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.93
    repetition_penalty: float = 1.1
    cfg_scale: float = 1.2
    first_section_cfg_scale: float = 1.5

    def section_cfg_scale(self, index: int) -> float:
        """Guidance scale of section `index`, counted from 0."""
        return self.cfg_scale if index else self.first_section_cfg_scale


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
