"""ACE-Step 1.5: text, tempo, key, metre, lyrics → music, by flow matching.

Gong et al., "ACE-Step 1.5: Pushing the Boundaries of Open-Source Music Generation" (2026).

B takes, C channels, N samples, W latent channels, T latent frames, 25 a second.
"""

from __future__ import annotations

from typing import Any

from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from v2m.core.timing import seconds_of
from v2m.core.types import ProgressFn
from v2m.generators.diffusers.adapter import Job
from v2m.generators.diffusers.runtime import decoded, frames_of, generators, placed, seeded, telling


class AceStep:
    """Takes up a recording's tune as a "cover" of it, and writes a part anew as a "repaint"."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        turbo = self._pipeline.is_turbo  # distilled to few steps, its guidance built in
        return {"num_inference_steps": 8 if turbo else 50, "guidance_scale": 1.0 if turbo else 7.0}

    def write(self, told: dict[str, Any], job: Job, strength: float, progress: ProgressFn) -> Tensor:
        pipeline, count = self._pipeline, len(job.seeds)
        frames = frames_of(job.samples, pipeline.vae.hop_length) + 1
        shape = (count, frames, pipeline.transformer.config.audio_acoustic_hidden_dim)
        device, dtype = pipeline._execution_device, pipeline.transformer.dtype
        listed = {name: [told[name]] * count for name in ("prompt", "lyrics", "vocal_language")}
        with seeded():
            latents = pipeline(
                **{**told, **listed},
                **self._sounds(job, strength, frames),
                # in the middle of a frame: at its edge, of 7 frames it would make noise for 8
                audio_duration=seconds_of(int((frames - 0.5) * pipeline.vae.hop_length), pipeline.sample_rate),
                latents=randn_tensor(shape, generators(job.seeds), device, dtype),
                output_type="latent",
                callback_on_step_end=telling(progress, told["num_inference_steps"]),
            ).audios  # (B, T, W)
        return decoded(pipeline, latents.transpose(1, 2), job.samples)

    def _sounds(self, job: Job, strength: float, frames: int) -> dict[str, Any]:
        pipeline, hop, rate = self._pipeline, self._pipeline.vae.hop_length, self._pipeline.sample_rate
        whole = frames * hop
        given: dict[str, Any] = {}
        if job.reference is not None:
            given["reference_audio"] = placed(pipeline, job.reference, job.reference.shape[-1])
        if job.kept is not None:
            begin, end = job.span[0] // hop, frames_of(job.span[1], hop)
            given |= {
                "task_type": "repaint",
                "src_audio": placed(pipeline, job.kept, whole),
                "repainting_start": seconds_of(int((begin + 0.5) * hop), rate),
                "repainting_end": seconds_of(int((end + 0.5) * hop), rate),
            }
        elif job.melody is not None:
            source = placed(pipeline, job.melody, whole)
            given |= {"task_type": "cover", "src_audio": source, "audio_cover_strength": strength}
        return given
