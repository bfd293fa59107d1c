"""Stable Audio Open: text → up to 47.6 s of music, by diffusion with a cosine schedule.

Evans et al., "Stable Audio Open" (2024). Parts are kept as in Lugmayr et al., "RePaint" (2022): at each step what is to
stay takes the place of what was written there, with as much noise as that step leaves.

B takes, C channels, N samples, W latent channels, T latent frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from v2m.core.timing import seconds_of
from v2m.core.types import ProgressFn
from v2m.generators.diffusers.adapter import Job
from v2m.generators.diffusers.runtime import decoded, frames_of, generators, placed


class StableAudio:
    """Takes up a recording's tune by beginning from it, with as much noise as its strength leaves."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        return {"num_inference_steps": 100, "guidance_scale": 7.0}

    def write(self, told: dict[str, Any], job: Job, strength: float, progress: ProgressFn) -> Tensor:
        pipeline, count = self._pipeline, len(job.seeds)
        hop, rate = pipeline.vae.hop_length, pipeline.vae.config.sampling_rate
        whole = pipeline.transformer.config.sample_size * hop
        noise = generators(job.seeds)
        listed: dict[str, Any] = {
            name: [told[name]] * count for name in ("prompt", "negative_prompt") if told[name] is not None
        }
        if job.melody is not None:
            listed["initial_audio_waveforms"] = placed(pipeline, job.melody, whole).expand(count, -1, -1)
            listed["initial_audio_sampling_rate"] = rate
        with self._noise(strength if job.melody is not None else 0.0), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchsde")  # of the last digit of a noise level
            latents = pipeline(
                **{**told, **listed},
                audio_end_in_s=seconds_of(job.samples, rate),
                generator=noise,
                output_type="latent",
                callback=self._at_each_step(job, noise, whole, progress),
            ).audios  # (B, W, T)
        return decoded(pipeline, latents, job.samples)

    @contextmanager
    def _noise(self, strength: float) -> Iterator[None]:
        """Inside, the noise begins lower the closer a melody is followed: from all (0) to twice the least (1)."""
        usual = self._pipeline.scheduler
        high, low = usual.config.sigma_max, 2 * usual.config.sigma_min
        begin = high ** (1 - strength) * low**strength
        self._pipeline.scheduler = type(usual).from_config(usual.config, sigma_max=begin)
        try:
            yield
        finally:
            self._pipeline.scheduler = usual

    @torch.inference_mode()
    def _at_each_step(
        self, job: Job, noise: list[torch.Generator], whole: int, progress: ProgressFn
    ) -> Callable[[int, Any, Tensor], None]:
        pipeline, hop = self._pipeline, self._pipeline.vae.hop_length
        known: Tensor | None = None
        stays = torch.ones(whole // hop, dtype=torch.bool)
        if job.kept is not None:
            known = pipeline.vae.encode(placed(pipeline, job.kept, whole)).latent_dist.mode()  # (B, W, T)
            stays[job.span[0] // hop : frames_of(job.span[1], hop)] = False
            stays[frames_of(job.samples, hop) :] = False

        def step_done(step: int, time: Any, latents: Tensor) -> None:  # noqa: ARG001 - diffusers' signature
            left = pipeline.scheduler.sigmas[step + 1]
            if known is not None:
                there = stays.to(latents.device)
                fresh = randn_tensor(known.shape, noise, latents.device, latents.dtype)
                latents[..., there] = (known + left * fresh)[..., there].to(latents.dtype)
            progress((step + 1) / (len(pipeline.scheduler.sigmas) - 1))

        return step_done
