"""Stable Audio 3 adapter: text → minutes of music, by rectified flow, distilled to eight steps or not.

Stability AI, "Stable Audio 3" (arXiv 2605.17991).

B candidates, C channels, N samples, T latent frames.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3_audio2audio import StableAudio3AudioToAudioPipeline
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3_inpaint import StableAudio3InpaintPipeline
from torch import Tensor

from v2m.core.timing import seconds_of
from v2m.core.types import ProgressFn
from v2m.generators.diffusers.adapter import GenerationRequest
from v2m.generators.diffusers.runtime import (
    decode_latents,
    fixed_global_seed,
    latent_frames,
    seeded_generators,
    step_progress,
    to_encoder_input,
)

MIN_NOISE_LEVEL = 0.05  # without any noise the melody would come back unchanged


class StableAudio3Adapter:
    """Follows a melody by the audio-to-audio pipeline, inpaints by the inpainting pipeline."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        distilled = self._pipeline.scheduler.config.stochastic_sampling
        return {"num_inference_steps": 8 if distilled else 100, "guidance_scale": 1.0 if distilled else 7.0}

    def generate(
        self, arguments: dict[str, Any], request: GenerationRequest, melody_strength: float, progress: ProgressFn
    ) -> Tensor:
        pipeline, count = self._pipeline, len(request.seeds)
        task_pipeline, task_arguments = self._task_pipeline(request, melody_strength)
        names = ("prompt", "negative_prompt")
        batched = {name: [arguments[name]] * count for name in names if arguments.get(name) is not None}
        call_arguments = {**arguments, **batched}
        if task_pipeline is not pipeline:  # the other two have no guidance
            call_arguments = {
                name: value
                for name, value in call_arguments.items()
                if name not in {"guidance_scale", "negative_prompt"}
            }
        with fixed_global_seed():
            latents = task_pipeline(
                **call_arguments,
                **task_arguments,
                duration=seconds_of(request.num_samples, pipeline.vae.config.sampling_rate),
                generator=seeded_generators(request.seeds),
                output_type="latent",
                callback_on_step_end=step_progress(progress, arguments["num_inference_steps"]),
            ).audios  # (B, W, T)
        return decode_latents(pipeline, latents, request.num_samples)

    def _task_pipeline(self, request: GenerationRequest, melody_strength: float) -> tuple[Any, dict[str, Any]]:
        """The pipeline for the task, over the same components, and its additional arguments."""
        pipeline, hop = self._pipeline, self._pipeline.vae.downsampling_ratio
        count, frames = len(request.seeds), latent_frames(request.num_samples, hop)
        if request.source is not None:
            mask = torch.ones(count, 1, frames)
            mask[..., request.inpaint_range[0] // hop : latent_frames(request.inpaint_range[1], hop)] = 0
            task_class, arguments = (
                StableAudio3InpaintPipeline,
                {"audio": to_encoder_input(pipeline, request.source, frames * hop), "mask": mask},
            )
        elif request.melody is not None:
            audio = to_encoder_input(pipeline, request.melody, frames * hop).expand(count, -1, -1)
            noise = max(1.0 - melody_strength, MIN_NOISE_LEVEL)
            task_class, arguments = StableAudio3AudioToAudioPipeline, {"audio": audio, "init_noise_level": noise}
        else:
            return pipeline, {}
        task_pipeline = task_class(**pipeline.components)
        task_pipeline.set_progress_bar_config(disable=True)
        return task_pipeline, arguments
