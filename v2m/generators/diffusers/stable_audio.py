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
from v2m.generators.diffusers.adapter import GenerationRequest
from v2m.generators.diffusers.runtime import decode_latents, latent_frames, seeded_generators, to_encoder_input


class StableAudioAdapter:
    """Takes up a recording's tune by beginning from it, with as much noise as its strength leaves."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        return {"num_inference_steps": 100, "guidance_scale": 7.0}

    def generate(
        self, arguments: dict[str, Any], request: GenerationRequest, melody_strength: float, progress: ProgressFn
    ) -> Tensor:
        pipeline, count = self._pipeline, len(request.seeds)
        hop, rate = pipeline.vae.hop_length, pipeline.vae.config.sampling_rate
        whole = pipeline.transformer.config.sample_size * hop
        noise = seeded_generators(request.seeds)
        listed: dict[str, Any] = {
            name: [arguments[name]] * count for name in ("prompt", "negative_prompt") if arguments[name] is not None
        }
        if request.melody is not None:
            listed["initial_audio_waveforms"] = to_encoder_input(pipeline, request.melody, whole).expand(count, -1, -1)
            listed["initial_audio_sampling_rate"] = rate
        with (
            self._initial_noise_level(melody_strength if request.melody is not None else 0.0),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", module="torchsde")  # of the last digit of a noise level
            latents = pipeline(
                **{**arguments, **listed},
                audio_end_in_s=seconds_of(request.num_samples, rate),
                generator=noise,
                output_type="latent",
                callback=self._step_callback(request, noise, whole, progress),
            ).audios  # (B, W, T)
        return decode_latents(pipeline, latents, request.num_samples)

    @contextmanager
    def _initial_noise_level(self, melody_strength: float) -> Iterator[None]:
        """Inside, the noise begins lower the closer a melody is followed: from all (0) to twice the least (1)."""
        usual = self._pipeline.scheduler
        high, low = usual.config.sigma_max, 2 * usual.config.sigma_min
        begin = high ** (1 - melody_strength) * low**melody_strength
        self._pipeline.scheduler = type(usual).from_config(usual.config, sigma_max=begin)
        try:
            yield
        finally:
            self._pipeline.scheduler = usual

    @torch.inference_mode()
    def _step_callback(
        self, request: GenerationRequest, noise: list[torch.Generator], whole: int, progress: ProgressFn
    ) -> Callable[[int, Any, Tensor], None]:
        pipeline, hop = self._pipeline, self._pipeline.vae.hop_length
        known: Tensor | None = None
        stays = torch.ones(whole // hop, dtype=torch.bool)
        if request.source is not None:
            known = pipeline.vae.encode(
                to_encoder_input(pipeline, request.source, whole)
            ).latent_dist.mode()  # (B, W, T)
            stays[request.inpaint_range[0] // hop : latent_frames(request.inpaint_range[1], hop)] = False
            stays[latent_frames(request.num_samples, hop) :] = False

        def step_done(step: int, time: Any, latents: Tensor) -> None:  # noqa: ARG001 - diffusers' signature
            left = pipeline.scheduler.sigmas[step + 1]
            if known is not None:
                there = stays.to(latents.device)
                fresh = randn_tensor(known.shape, noise, latents.device, latents.dtype)
                latents[..., there] = (known + left * fresh)[..., there].to(latents.dtype)
            progress((step + 1) / (len(pipeline.scheduler.sigmas) - 1))

        return step_done
