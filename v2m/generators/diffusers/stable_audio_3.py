"""Stable Audio 3: text → minutes of music, by rectified flow, distilled to eight steps or not.

Stability AI, "Stable Audio 3" (arXiv 2605.17991).

B takes, C channels, N samples, T latent frames.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3_audio2audio import StableAudio3AudioToAudioPipeline
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3_inpaint import StableAudio3InpaintPipeline
from torch import Tensor

from v2m.core.timing import seconds_of
from v2m.core.types import ProgressFn
from v2m.generators.diffusers.adapter import Job
from v2m.generators.diffusers.runtime import decoded, frames_of, generators, placed, seeded, telling

LEAST_NOISE = 0.05  # with none at all there is nothing to write


class StableAudio3:
    """Takes up a recording's tune by beginning from it, and writes a part anew as its inpainting does."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        distilled = self._pipeline.scheduler.config.stochastic_sampling
        return {"num_inference_steps": 8 if distilled else 100, "guidance_scale": 1.0 if distilled else 7.0}

    def write(self, told: dict[str, Any], job: Job, strength: float, progress: ProgressFn) -> Tensor:
        pipeline, count = self._pipeline, len(job.seeds)
        run, given = self._of(job, strength)
        names = ("prompt", "negative_prompt")
        listed = {name: [told[name]] * count for name in names if told.get(name) is not None}
        words = {**told, **listed}
        if run is not pipeline:  # neither is guided
            words = {name: value for name, value in words.items() if name not in {"guidance_scale", "negative_prompt"}}
        with seeded():
            latents = run(
                **words,
                **given,
                duration=seconds_of(job.samples, pipeline.vae.config.sampling_rate),
                generator=generators(job.seeds),
                output_type="latent",
                callback_on_step_end=telling(progress, told["num_inference_steps"]),
            ).audios  # (B, W, T)
        return decoded(pipeline, latents, job.samples)

    def _of(self, job: Job, strength: float) -> tuple[Any, dict[str, Any]]:
        """The pipeline of the same parts that does the job, and what only it is told."""
        pipeline, hop = self._pipeline, self._pipeline.vae.downsampling_ratio
        count, frames = len(job.seeds), frames_of(job.samples, hop)
        if job.kept is not None:
            mask = torch.ones(count, 1, frames)
            mask[..., job.span[0] // hop : frames_of(job.span[1], hop)] = 0
            kind, given = StableAudio3InpaintPipeline, {"audio": placed(pipeline, job.kept, frames * hop), "mask": mask}
        elif job.melody is not None:
            sound = placed(pipeline, job.melody, frames * hop).expand(count, -1, -1)
            noise = max(1.0 - strength, LEAST_NOISE)
            kind, given = StableAudio3AudioToAudioPipeline, {"audio": sound, "init_noise_level": noise}
        else:
            return pipeline, {}
        run = kind(**pipeline.components)
        run.set_progress_bar_config(disable=True)
        return run, given
