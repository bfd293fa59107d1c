"""Adapters: each supported diffusers pipeline behind one interface.

B candidates, C channels, N samples, W latent channels, T latent frames.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3_audio2audio import StableAudio3AudioToAudioPipeline
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3_inpaint import StableAudio3InpaintPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from v2m.core.compat import execution_device
from v2m.core.timing import samples_to_seconds
from v2m.core.types import ProgressFn
from v2m.generators.diffusers.pipeline_info import PipelineKind

MIN_NOISE_LEVEL = 0.05  # of Stable Audio 3: without any noise the melody would come back unchanged


@dataclass(frozen=True)
class GenerationRequest:
    """One call of a pipeline, for one candidate per seed."""

    num_samples: int  # N, at the pipeline's rate
    seeds: tuple[int, ...]
    melody: Tensor | None = None  # (C, N)
    melody_strength: float = 0.0  # closeness to the melody, 0 to 1
    reference: Tensor | None = None  # (C, any length), of style
    source: Tensor | None = None  # (B, C, N), known outside the samples `inpaint_range`
    inpaint_range: tuple[int, int] = (0, 0)

    def inpaint_frames(self, hop_length: int) -> tuple[int, int]:
        return self.inpaint_range[0] // hop_length, _latent_frames(self.inpaint_range[1], hop_length)


class PipelineAdapter(ABC):
    """A diffusers pipeline behind one signature."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    @abstractmethod
    def defaults(self) -> dict[str, Any]:
        """Number of steps and guidance scale that the pipeline's authors recommend."""

    @abstractmethod
    def generate(self, arguments: dict[str, Any], request: GenerationRequest, progress: ProgressFn) -> Tensor:
        """Audio (B, C, N) float32 on the CPU, not limited to ±1; `arguments` are the pipeline's own."""

    def _encoder_input(self, audio: Tensor, num_samples: int) -> Tensor:
        """Cut or zero-pad `audio` (…, N) to `num_samples`, on the encoder's device and in its dtype."""
        audio = audio[..., :num_samples]
        audio = torch.nn.functional.pad(audio, (0, num_samples - audio.shape[-1]))
        return audio.to(execution_device(self._pipeline), self._pipeline.vae.dtype)

    @torch.inference_mode()
    def _decode_latents(self, latents: Tensor, num_samples: int) -> Tensor:
        """Decode (B, W, T) → (B, C, `num_samples`) float32 on the CPU, one by one; then offload if configured."""
        decode = self._pipeline.vae.decode
        waves = [decode(latent[None]).sample[..., :num_samples].float().cpu() for latent in latents]
        self._pipeline.maybe_free_model_hooks()
        return torch.cat(waves)


class AceStepAdapter(PipelineAdapter):
    """ACE-Step 1.5: text, tempo, key, meter, lyrics → music, by flow matching; 25 latent frames a second.

    Follows a melody by its "cover" task and inpaints by its "repaint" task. Gong et al., "ACE-Step 1.5: Pushing the
    Boundaries of Open-Source Music Generation" (2026).
    """

    def defaults(self) -> dict[str, Any]:
        turbo = self._pipeline.is_turbo  # distilled to few steps with guidance built in
        return {"num_inference_steps": 8 if turbo else 50, "guidance_scale": 1.0 if turbo else 7.0}

    def generate(self, arguments: dict[str, Any], request: GenerationRequest, progress: ProgressFn) -> Tensor:
        pipeline, count, hop = self._pipeline, len(request.seeds), self._pipeline.vae.hop_length
        frames = _latent_frames(request.num_samples, hop) + 1
        shape = (count, frames, pipeline.transformer.config.audio_acoustic_hidden_dim)
        device, dtype = execution_device(pipeline), pipeline.transformer.dtype
        batched = {name: [arguments[name]] * count for name in ("prompt", "lyrics", "vocal_language")}
        with _fixed_global_seed():
            latents = pipeline(
                **{**arguments, **batched},
                **self._task_arguments(request, frames),
                # the middle of the last frame: at its edge the pipeline may round up to one frame more
                audio_duration=samples_to_seconds(int((frames - 0.5) * hop), pipeline.sample_rate),
                latents=randn_tensor(shape, _seeded_generators(request.seeds), device, dtype),
                output_type="latent",
                callback_on_step_end=_step_callback(progress, arguments["num_inference_steps"]),
            ).audios  # (B, T, W)
        return self._decode_latents(latents.transpose(1, 2), request.num_samples)

    def _task_arguments(self, request: GenerationRequest, frames: int) -> dict[str, Any]:
        hop, rate = self._pipeline.vae.hop_length, self._pipeline.sample_rate
        arguments: dict[str, Any] = {}
        if request.reference is not None:
            arguments["reference_audio"] = self._encoder_input(request.reference, request.reference.shape[-1])
        if request.source is not None:
            start, end = request.inpaint_frames(hop)
            arguments |= {
                "task_type": "repaint",
                "src_audio": self._encoder_input(request.source, frames * hop),
                "repainting_start": samples_to_seconds(int((start + 0.5) * hop), rate),
                "repainting_end": samples_to_seconds(int((end + 0.5) * hop), rate),
            }
        elif request.melody is not None:
            arguments |= {
                "task_type": "cover",
                "src_audio": self._encoder_input(request.melody, frames * hop),
                "audio_cover_strength": request.melody_strength,
            }
        return arguments


class StableAudioAdapter(PipelineAdapter):
    """Stable Audio Open: text → up to 47.6 s of music, by diffusion with a cosine schedule.

    Follows a melody by starting from its noisy latents. Inpaints in the step callback, as in Lugmayr et al., "RePaint"
    (2022): after each step the known latents, with noise of that step's σ, replace the generated ones. Evans et al.,
    "Stable Audio Open" (2024).
    """

    def defaults(self) -> dict[str, Any]:
        return {"num_inference_steps": 100, "guidance_scale": 7.0}

    def generate(self, arguments: dict[str, Any], request: GenerationRequest, progress: ProgressFn) -> Tensor:
        pipeline, count, rate = self._pipeline, len(request.seeds), self._pipeline.vae.config.sampling_rate
        max_samples = pipeline.transformer.config.sample_size * pipeline.vae.hop_length
        generators = _seeded_generators(request.seeds)
        batched: dict[str, Any] = {
            name: [arguments[name]] * count for name in ("prompt", "negative_prompt") if arguments[name] is not None
        }
        if request.melody is not None:
            melody = self._encoder_input(request.melody, max_samples).expand(count, -1, -1)
            batched |= {"initial_audio_waveforms": melody, "initial_audio_sampling_rate": rate}
        strength = 0.0 if request.melody is None else request.melody_strength
        with self._initial_noise_level(strength), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchsde")  # about rounding in the last digit of σ
            latents = pipeline(
                **{**arguments, **batched},
                audio_end_in_s=samples_to_seconds(request.num_samples, rate),
                generator=generators,
                output_type="latent",
                callback=self._inpainting_callback(request, generators, max_samples, progress),
            ).audios  # (B, W, T)
        return self._decode_latents(latents, request.num_samples)

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
    def _inpainting_callback(
        self, request: GenerationRequest, generators: list[torch.Generator], max_samples: int, progress: ProgressFn
    ) -> Callable[[int, Any, Tensor], None]:
        pipeline, hop = self._pipeline, self._pipeline.vae.hop_length
        known: Tensor | None = None
        mask = torch.ones(max_samples // hop, dtype=torch.bool)  # of the known frames
        if request.source is not None:
            source = self._encoder_input(request.source, max_samples)
            known = pipeline.vae.encode(source).latent_dist.mode()  # (B, W, T)
            mask[slice(*request.inpaint_frames(hop))] = False
            mask[_latent_frames(request.num_samples, hop) :] = False

        def step_done(step: int, time: Any, latents: Tensor) -> None:  # noqa: ARG001 - diffusers' signature
            sigma = pipeline.scheduler.sigmas[step + 1]
            if known is not None:
                device_mask = mask.to(latents.device)
                noise = randn_tensor(known.shape, generators, latents.device, latents.dtype)
                latents[..., device_mask] = (known + sigma * noise)[..., device_mask].to(latents.dtype)
            progress((step + 1) / (len(pipeline.scheduler.sigmas) - 1))

        return step_done


class StableAudio3Adapter(PipelineAdapter):
    """Stable Audio 3: text → minutes of music, by rectified flow, distilled to eight steps or not.

    Follows a melody by the audio-to-audio pipeline, inpaints by the inpainting pipeline. Stability AI, "Stable Audio 3"
    (arXiv 2605.17991).
    """

    def defaults(self) -> dict[str, Any]:
        distilled = self._pipeline.scheduler.config.stochastic_sampling
        return {"num_inference_steps": 8 if distilled else 100, "guidance_scale": 1.0 if distilled else 7.0}

    def generate(self, arguments: dict[str, Any], request: GenerationRequest, progress: ProgressFn) -> Tensor:
        pipeline, count = self._pipeline, len(request.seeds)
        task_pipeline, task_arguments = self._task_pipeline(request)
        # the other two pipelines have no guidance
        unsupported = set() if task_pipeline is pipeline else {"guidance_scale", "negative_prompt"}
        supported = {name: value for name, value in arguments.items() if name not in unsupported}
        batched = {
            name: [supported[name]] * count for name in ("prompt", "negative_prompt") if supported.get(name) is not None
        }
        with _fixed_global_seed():
            latents = task_pipeline(
                **{**supported, **batched},
                **task_arguments,
                duration=samples_to_seconds(request.num_samples, pipeline.vae.config.sampling_rate),
                generator=_seeded_generators(request.seeds),
                output_type="latent",
                callback_on_step_end=_step_callback(progress, arguments["num_inference_steps"]),
            ).audios  # (B, W, T)
        return self._decode_latents(latents, request.num_samples)

    def _task_pipeline(self, request: GenerationRequest) -> tuple[Any, dict[str, Any]]:
        """The pipeline for the task, over the same components, and its additional arguments."""
        pipeline, hop = self._pipeline, self._pipeline.vae.downsampling_ratio
        count, frames = len(request.seeds), _latent_frames(request.num_samples, hop)
        if request.source is not None:
            mask = torch.ones(count, 1, frames)
            mask[..., slice(*request.inpaint_frames(hop))] = 0
            task_pipeline = StableAudio3InpaintPipeline(**pipeline.components)
            arguments = {"audio": self._encoder_input(request.source, frames * hop), "mask": mask}
        elif request.melody is not None:
            audio = self._encoder_input(request.melody, frames * hop).expand(count, -1, -1)
            noise_level = max(1.0 - request.melody_strength, MIN_NOISE_LEVEL)
            task_pipeline = StableAudio3AudioToAudioPipeline(**pipeline.components)
            arguments = {"audio": audio, "init_noise_level": noise_level}
        else:
            return pipeline, {}
        task_pipeline.set_progress_bar_config(disable=True)
        return task_pipeline, arguments


ADAPTERS: dict[PipelineKind, type[PipelineAdapter]] = {
    "AceStepPipeline": AceStepAdapter,
    "StableAudioPipeline": StableAudioAdapter,
    "StableAudio3Pipeline": StableAudio3Adapter,
}


def _latent_frames(num_samples: int, hop_length: int) -> int:
    return math.ceil(num_samples / hop_length)


def _seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator per candidate, the same in a batch as alone; on the CPU: the same on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@contextmanager
def _fixed_global_seed() -> Iterator[None]:
    """Seed torch's global generator inside: some pipelines draw from it when they encode audio."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _step_callback(progress: ProgressFn, steps: int) -> Callable[..., dict[str, Any]]:
    def step_done(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        progress((step + 1) / steps)
        return {}

    return step_done
