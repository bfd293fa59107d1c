"""Stable Audio Open adapter: text → up to 47.6 s of music, by diffusion with a cosine schedule.

Evans et al., "Stable Audio Open" (2024). Inpainting as in Lugmayr et al., "RePaint" (2022): after each step the known
latents, with noise of that step's σ, replace the generated ones.

B candidates, C channels, N samples, W latent channels, T latent frames.
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
from v2m.generators.diffusers.adapter import GenerationRequest
from v2m.generators.diffusers.runtime import decode_latents, latent_frames, seeded_generators, to_encoder_input


class StableAudioAdapter:
    """Follows a melody by starting from its noisy latents; inpaints in the step callback."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        return {"num_inference_steps": 100, "guidance_scale": 7.0}

    def generate(
        self, arguments: dict[str, Any], request: GenerationRequest, melody_strength: float, progress: ProgressFn
    ) -> Tensor:
        pipeline, count = self._pipeline, len(request.seeds)
        hop, rate = pipeline.vae.hop_length, pipeline.vae.config.sampling_rate
        max_samples = pipeline.transformer.config.sample_size * hop
        generators = seeded_generators(request.seeds)
        batched: dict[str, Any] = {
            name: [arguments[name]] * count for name in ("prompt", "negative_prompt") if arguments[name] is not None
        }
        if request.melody is not None:
            batched["initial_audio_waveforms"] = to_encoder_input(pipeline, request.melody, max_samples).expand(
                count, -1, -1
            )
            batched["initial_audio_sampling_rate"] = rate
        with (
            self._initial_noise_level(melody_strength if request.melody is not None else 0.0),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", module="torchsde")  # about rounding in the last digit of σ
            latents = pipeline(
                **{**arguments, **batched},
                audio_end_in_s=seconds_of(request.num_samples, rate),
                generator=generators,
                output_type="latent",
                callback=self._step_callback(request, generators, max_samples, progress),
            ).audios  # (B, W, T)
        return decode_latents(pipeline, latents, request.num_samples)

    @contextmanager
    def _initial_noise_level(self, melody_strength: float) -> Iterator[None]:
        """Lower the scheduler's σ_max inside: evenly in ln σ, down to 2 σ_min at strength 1."""
        scheduler = self._pipeline.scheduler
        high, low = scheduler.config.sigma_max, 2 * scheduler.config.sigma_min
        sigma_max = high ** (1 - melody_strength) * low**melody_strength
        self._pipeline.scheduler = type(scheduler).from_config(scheduler.config, sigma_max=sigma_max)
        try:
            yield
        finally:
            self._pipeline.scheduler = scheduler

    @torch.inference_mode()
    def _step_callback(
        self, request: GenerationRequest, generators: list[torch.Generator], max_samples: int, progress: ProgressFn
    ) -> Callable[[int, Any, Tensor], None]:
        pipeline, hop = self._pipeline, self._pipeline.vae.hop_length
        known: Tensor | None = None
        mask = torch.ones(max_samples // hop, dtype=torch.bool)  # of the known frames
        if request.source is not None:
            known = pipeline.vae.encode(
                to_encoder_input(pipeline, request.source, max_samples)
            ).latent_dist.mode()  # (B, W, T)
            mask[request.inpaint_range[0] // hop : latent_frames(request.inpaint_range[1], hop)] = False
            mask[latent_frames(request.num_samples, hop) :] = False

        def step_done(step: int, time: Any, latents: Tensor) -> None:  # noqa: ARG001 - diffusers' signature
            sigma = pipeline.scheduler.sigmas[step + 1]
            if known is not None:
                device_mask = mask.to(latents.device)
                noise = randn_tensor(known.shape, generators, latents.device, latents.dtype)
                latents[..., device_mask] = (known + sigma * noise)[..., device_mask].to(latents.dtype)
            progress((step + 1) / (len(pipeline.scheduler.sigmas) - 1))

        return step_done
