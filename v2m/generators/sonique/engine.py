"""SONIQUE inference: tags and a melody to conditions, latents in windows, and their audio.

B pieces, C latent channels, T latent frames, N samples, S condition tokens, D their dimension.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from v2m.core import compat
from v2m.core.audio_ops import loop_samples
from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_dtype
from v2m.core.progress import ignore_progress, sub_progress
from v2m.core.prompts import build_negative_prompt, warn_if_empty
from v2m.core.timing import mean_rate, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, ProgressFn, Soundtrack, Tags, Video, filter_unwanted
from v2m.generators.inpaint import InpaintSource
from v2m.generators.options import DiffusionPrecision, DiffusionSampling
from v2m.generators.sonique import windowed_sampling
from v2m.generators.sonique.checkpoint import SoniqueComponents
from v2m.generators.sonique.packed_unet import pack_unet
from v2m.generators.sonique.windowed_sampling import CFGCondition, Velocity, Window, WindowedSampling
from v2m.models.conditioning import Condition
from v2m.models.inference.windows import window_seed
from v2m.pretrained.codecs.oobleck import MARGIN_FRAMES

PROGRESS_SHARES = (0.03, 0.95)  # share of the work at which sampling begins and ends
DTYPES: dict[DiffusionPrecision, torch.dtype] = {  # of activations
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.bfloat16,
}


class SoniqueEngine:
    """The loaded model; generates one piece after the other, or several in a batch.

    `precision` is of the U-Net; the rest is small and stays in float32. On the CPU the U-Net of `components` is changed
    into its packed form. With `low_memory` each component is on the device only while it computes.
    """

    def __init__(
        self,
        components: SoniqueComponents,
        device: torch.device,
        precision: DiffusionPrecision | None,
        low_memory: bool,
    ) -> None:
        self._components, self._device, self._low_memory = components, device, low_memory
        self.config, self.weights = components.config, components.weights
        self.sample_rate = self.config.sample_rate
        self.window = samples_to_seconds(self.config.window_samples, self.sample_rate)  # seconds
        self._precision: DiffusionPrecision = precision or default_precision(device)
        self._unet = components.unet
        if device.type == "cpu":
            pack_unet(self._unet, DTYPES[self._precision], int8=self._precision == "int8")
        else:
            self._unet.to(DTYPES[self._precision])
        self._text_cache: dict[str, Condition] = {}

    @torch.inference_mode()
    def generate(
        self,
        video: Video,
        tags: Tags,
        seeds: Sequence[int],
        *,
        sampling: DiffusionSampling,
        overlap: float,
        melody: Audio | None = None,
        melody_strength: float = 0.0,
        inpaint_source: InpaintSource | None = None,
        batch_size: int = 1,
        progress: ProgressFn | None = None,
    ) -> list[Soundtrack]:
        """Generate music of exactly `video.duration` for each of `seeds`: (1, N) at the model's rate.

        With `inpaint_source`, the result is that source with its range replaced, at the source's own rate. The same
        seed gives the same piece, up to the rounding of sums, which depends on the batch.

        A window includes `overlap` seconds of known music on either side. A `melody` is at the model's rate, repeated
        to the video's length, and followed by `melody_strength`, 0 to 1. A batch has `batch_size` pieces.
        """
        progress = progress or ignore_progress
        progress(0.0)
        prompt, negative_prompt = build_prompt(tags), build_negative_prompt(tags).lower()
        warn_if_empty(prompt)
        total = -(-seconds_to_samples(video.duration, self.sample_rate) // self.config.hop_length)
        melody_latents, sigma_max = None, sampling.sigma_max
        if melody is not None:
            samples = loop_samples(melody.samples.mean(axis=0), 0, total * self.config.hop_length)
            melody_latents, sigma_max = self._encode_audio(samples, total), sampling.init_sigma(melody_strength)
        windows, latents, source_mask = self._plan_windows(total, overlap, inpaint_source)
        frames = self.config.window_samples // self.config.hop_length
        plan = WindowedSampling(windows, frames, latents, source_mask, melody_latents, sigma_max, sampling)
        batches = [seeds[start : start + batch_size] for start in range(0, len(seeds), batch_size)]
        sampling_progress = sub_progress(progress, *PROGRESS_SHARES)
        start_time, pieces = time.perf_counter(), []
        with self._on_device(self._unet):
            velocity = self._window_velocity(prompt, negative_prompt, sampling, video.duration)
            for index, batch in enumerate(batches):
                part = sub_progress(sampling_progress, index / len(batches), (index + 1) / len(batches))
                pieces.extend(windowed_sampling.sample_windows(plan, batch, velocity, part))
        elapsed = time.perf_counter() - start_time
        metadata = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            **self._metadata(plan),
            "batch_size": len(batches[0]),
            "steps_per_second": round(mean_rate(sampling.steps * len(windows) * len(batches), elapsed), 3),
        }
        soundtracks = []
        with self._on_device(self._components.autoencoder):
            for seed, piece in zip(seeds, pieces, strict=True):
                audio = self._decode_audio(piece, video.duration, windows, inpaint_source)
                window_seeds = [window_seed(seed, index) for index in range(len(windows))]
                soundtracks.append(Soundtrack(audio, metadata=metadata | {"window_seeds": window_seeds}))
        progress(1.0)
        return soundtracks

    def _plan_windows(
        self, total: int, overlap: float, source: InpaintSource | None
    ) -> tuple[list[Window], Tensor, Tensor]:
        """Windows over the frames to generate, the known latents (C, `total`), and their mask (`total`,)."""
        hop = self.config.hop_length
        if source is None:
            start, end = 0, total
            latents = torch.zeros(self.config.autoencoder.latent_dim, total, device=self._device)
        else:
            first, last = (seconds_to_samples(second, self.sample_rate) for second in (source.start, source.end))
            start, end = first // hop, min(-(-last // hop), total)
            latents = self._encode_audio(source.mono(self.sample_rate), total)
        source_mask = torch.ones(total, dtype=torch.bool, device=self._device)
        source_mask[start:end] = False
        frames = self.config.window_samples // hop
        overlap_frames = min(seconds_to_samples(overlap, self.sample_rate) // hop, frames // 3)
        windows = windowed_sampling.plan_windows(start, end, total=total, window=frames, overlap=overlap_frames)
        return windows, latents, source_mask

    def _encode_audio(self, audio: NDArray[np.float32], total: int) -> Tensor:
        """(N,) → (C, `total`); silence beyond the end."""
        padded = np.zeros(total * self.config.hop_length, np.float32)
        padded[: len(audio)] = audio[: len(padded)]
        with self._on_device(self._components.autoencoder):
            return self._components.autoencoder.encode(torch.from_numpy(padded).to(self._device)[None, None])[0]

    def _window_velocity(
        self, prompt: str, negative_prompt: str, sampling: DiffusionSampling, duration: float
    ) -> Callable[[Window], Velocity]:
        """The guided model of each window; its condition includes the window's start and the piece's duration."""

        def velocity(window: Window) -> Velocity:
            start = samples_to_seconds(window.start * self.config.hop_length, self.sample_rate)
            positive = self._condition(prompt, start, duration)
            negative = self._condition(negative_prompt, start, duration) if negative_prompt else None
            condition = CFGCondition(positive, negative, sampling.cfg_scale, sampling.cfg_rescale)
            return windowed_sampling.cfg_velocity(self._unet, condition)

        return velocity

    def _condition(self, text: str, start: float, duration: float) -> Condition:
        """Condition (1, S, D): the text, the window's start and the piece's duration in whole seconds."""
        if text not in self._text_cache:
            with self._on_device(self._components.text_encoder.model):
                self._text_cache[text] = self._components.text_encoder.encode([text]).to("cpu")
        tokens, mask, _ = self._text_cache[text]
        config, embeddings = self.config, self._components.seconds_embeddings
        numbers = dict(zip(config.number_ranges, (math.floor(start), math.ceil(duration)), strict=False))
        parts = {config.text_cond: (tokens, mask)}
        for name, (low, high) in config.number_ranges.items():
            row = embeddings[name][min(max(numbers.get(name, 0), low), high)]
            parts[name] = row[None, None].float(), torch.ones(1, 1, dtype=torch.bool)
        ordered = [parts[name] for name in config.cond_order]
        condition = Condition(torch.cat([part[0] for part in ordered], 1), torch.cat([part[1] for part in ordered], 1))
        return condition.to(self._device)

    def _decode_audio(
        self, latents: Tensor, duration: float, windows: Sequence[Window], inpaint_source: InpaintSource | None
    ) -> Audio:
        hop, num_samples = self.config.hop_length, seconds_to_samples(duration, self.sample_rate)
        start = 0 if inpaint_source is None else max(windows[0].output_start - MARGIN_FRAMES, 0)
        end = latents.shape[-1] if inpaint_source is None else windows[-1].output_end + MARGIN_FRAMES
        wave = self._components.autoencoder.decode(latents[None, :, start:end])[0].cpu().numpy()
        if inpaint_source is None:
            return Audio(wave[:, :num_samples], self.sample_rate)
        padded = np.zeros((1, latents.shape[-1] * hop), np.float32)
        padded[:, start * hop : start * hop + wave.shape[1]] = wave
        return inpaint_source.crossfade_in(Audio(padded[:, :num_samples], self.sample_rate))

    def _metadata(self, plan: WindowedSampling) -> dict[str, Any]:
        hop, rate, sampling = self.config.hop_length, self.sample_rate, plan.sampling
        return {
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "sigmas": [plan.sigma_max, sampling.sigma_min],
            "cfg_scale": sampling.cfg_scale,
            "cfg_rescale": sampling.cfg_rescale,
            "windows": [
                [
                    round(samples_to_seconds(frame * hop, rate), 3)
                    for frame in (window.start, window.start + plan.window_frames)
                ]
                for window in plan.windows
            ],
            "precision": self._precision,
            "device": self._device.type,
        }

    @contextmanager
    def _on_device(self, module: nn.Module) -> Iterator[None]:
        """`module` on the device: only while it is used with `low_memory`, else for good."""
        module.to(self._device)
        try:
            yield
        finally:
            if self._low_memory:
                module.to("cpu")


def default_precision(device: torch.device) -> DiffusionPrecision:
    """Return bf16 where the device multiplies it in hardware, fp16 on older CUDA cards, else fp32."""
    if device.type == "cpu" and compat.cpu_has_avx512_bf16():
        return "bf16"
    return next(name for name, dtype in DTYPES.items() if dtype == choose_dtype(device))


def check_precision(precision: DiffusionPrecision | None, device: torch.device) -> None:
    """Raise UsageError for int8 where nothing multiplies it."""
    supported = compat.onednn_int8_ops() is not None and compat.onednn_supports(DTYPES["int8"])
    if precision == "int8" and not (supported and device.type == "cpu"):
        raise UsageError(f"precision int8 needs a CPU with VNNI, not {device.type} here: give bf16 or fp32")


def build_prompt(tags: Tags) -> str:
    """Build the prompt in the form of SONIQUE's training, the caption only where no other tag is.

    Such as "piano, strings, ambient, calm, warm, f minor, 96 bpm". Words that `tags.negative` rules out are left out.
    """
    words = filter_unwanted([*tags.instruments, *tags.genres, *tags.moods, *tags.timbres], tags.negative)
    words += [tags.key] if tags.key else []
    words += [f"{round(tags.tempo)} BPM"] if tags.tempo else []
    return ", ".join(dict.fromkeys(word.lower() for word in words)) or " ".join(tags.caption.lower().split())
