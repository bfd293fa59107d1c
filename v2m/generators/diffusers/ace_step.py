"""ACE-Step 1.5 adapter: text, tempo, key, meter, lyrics → music, by flow matching.

Gong et al., "ACE-Step 1.5: Pushing the Boundaries of Open-Source Music Generation" (2026).

B candidates, C channels, N samples, W latent channels, T latent frames, 25 a second.
"""

from __future__ import annotations

from typing import Any

from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from v2m.core.compat import execution_device
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


class AceStepAdapter:
    """Follows a melody by ACE-Step's "cover" task and inpaints by its "repaint" task."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def defaults(self) -> dict[str, Any]:
        turbo = self._pipeline.is_turbo  # distilled to few steps with guidance built in
        return {"num_inference_steps": 8 if turbo else 50, "guidance_scale": 1.0 if turbo else 7.0}

    def generate(
        self, arguments: dict[str, Any], request: GenerationRequest, melody_strength: float, progress: ProgressFn
    ) -> Tensor:
        pipeline, count = self._pipeline, len(request.seeds)
        frames = latent_frames(request.num_samples, pipeline.vae.hop_length) + 1
        shape = (count, frames, pipeline.transformer.config.audio_acoustic_hidden_dim)
        device, dtype = execution_device(pipeline), pipeline.transformer.dtype
        batched = {name: [arguments[name]] * count for name in ("prompt", "lyrics", "vocal_language")}
        with fixed_global_seed():
            latents = pipeline(
                **{**arguments, **batched},
                **self._audio_arguments(request, melody_strength, frames),
                # the middle of the last frame: at its edge the pipeline may round up to one frame more
                audio_duration=seconds_of(int((frames - 0.5) * pipeline.vae.hop_length), pipeline.sample_rate),
                latents=randn_tensor(shape, seeded_generators(request.seeds), device, dtype),
                output_type="latent",
                callback_on_step_end=step_progress(progress, arguments["num_inference_steps"]),
            ).audios  # (B, T, W)
        return decode_latents(pipeline, latents.transpose(1, 2), request.num_samples)

    def _audio_arguments(self, request: GenerationRequest, melody_strength: float, frames: int) -> dict[str, Any]:
        pipeline, hop, rate = self._pipeline, self._pipeline.vae.hop_length, self._pipeline.sample_rate
        num_samples = frames * hop
        arguments: dict[str, Any] = {}
        if request.reference is not None:
            arguments["reference_audio"] = to_encoder_input(pipeline, request.reference, request.reference.shape[-1])
        if request.source is not None:
            start, end = request.inpaint_range[0] // hop, latent_frames(request.inpaint_range[1], hop)
            arguments |= {
                "task_type": "repaint",
                "src_audio": to_encoder_input(pipeline, request.source, num_samples),
                "repainting_start": seconds_of(int((start + 0.5) * hop), rate),
                "repainting_end": seconds_of(int((end + 0.5) * hop), rate),
            }
        elif request.melody is not None:
            source = to_encoder_input(pipeline, request.melody, num_samples)
            arguments |= {"task_type": "cover", "src_audio": source, "audio_cover_strength": melody_strength}
        return arguments
