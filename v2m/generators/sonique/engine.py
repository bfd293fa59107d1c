"""A piece from begin to end: words and a tune to what the model is told, latents in windows, and their sound.

B pieces, C latent channels, T latent frames, N samples, S condition tokens, D their width.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from v2m.core.lazy_model import choose_dtype
from v2m.core.timing import mean_rate, sample_count, seconds_of
from v2m.core.types import Audio, ProgressFn, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.inpaint import InpaintSource
from v2m.generators.sonique import checkpoint, prompt, sampling_loop, windows
from v2m.generators.sonique.denoiser import CFGCondition, Velocity, cfg_velocity
from v2m.generators.sonique.options import DiffusionSampling, Precision
from v2m.generators.sonique.samplers import Told
from v2m.generators.sonique.windows import Window
from v2m.models.conditioning import Condition
from v2m.models.inference.windows import window_seed
from v2m.pretrained.codecs.oobleck import MARGIN_FRAMES

PROGRESS_SHARES = (0.03, 0.95)  # of the work done when the latents are begun, and when they stand
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

WindowVelocity = Callable[[Window], Velocity]

logger = logging.getLogger(__name__)


class SoniqueEngine:
    """The model in its parts, which plays one piece after the other, or several at once.

    Args:
        parts: On the CPU.
        device: Where the work is done.
        precision: Of the U-Net; the rest is small and stays in float32. None is what suits the device.
        low_memory: Whether each part is on the device only while it works.
    """

    def __init__(
        self,
        components: checkpoint.SoniqueComponents,
        device: torch.device,
        precision: Precision | None,
        low_memory: bool,
    ) -> None:
        self._components, self._device, self._low_memory = components, device, low_memory
        self.settings, self.weights = components.settings, components.weights
        self._unet = components.unet.to(choose_dtype(device) if precision is None else DTYPES[precision])
        self._text_cache: dict[str, Condition] = {}

    @classmethod
    def load(
        cls, name: str, tokenizer: str, device: torch.device, precision: Precision | None, low_memory: bool
    ) -> SoniqueEngine:
        """From a folder in SONIQUE's layout.

        Raises:
            DependencyError: Weights are missing, broken, or do not belong together; says which.
        """
        return cls(checkpoint.load_components(name, tokenizer), device, precision, low_memory)

    weights: tuple[WeightsInfo, ...]

    @property
    def sample_rate(self) -> int:
        return self.settings.sample_rate

    @property
    def window(self) -> float:
        """Seconds that the model makes in one go."""
        return seconds_of(self.settings.window_samples, self.sample_rate)

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
        """Music of exactly `video.duration` for each of `seeds`: (1, N) at the model's rate, or what is kept with a
        part of it anew, at its own.

        Args:
            video: What it is for.
            tags: What it should be.
            seeds: The same gives the same piece, up to the rounding of sums that depends on how many are at once.
            sampling: How noise becomes music.
            overlap: Seconds of what stands that a window is shown on either side.
            melody: A tune to follow, at the model's rate; it begins anew where the video is longer.
            strength: How closely, 0 to 1.
            kept: Earlier music of which a part is to be written anew.
            at_once: Pieces that are made side by side.
            progress: Told how much is done.
        """
        tell: Callable[[float], None] = progress or (lambda _: None)
        tell(0.0)
        line, unwanted = prompt.build_prompt(tags), prompt.build_negative_prompt(tags)
        if not line:
            logger.warning("no tag says what the music should be: it is written without a prompt; give --tags.genres")
        total = -(-sample_count(video.duration, self.sample_rate) // self.settings.hop_length)
        tune = None if melody is None else self._encode_audio(_looped(melody, total * self.settings.hop_length), total)
        work = self._plan_sampling(
            total,
            inpaint_source,
            tune,
            sampling=sampling,
            overlap=overlap,
            init_sigma=sampling.init_sigma(melody_strength),
        )
        groups = [seeds[start : start + batch_size] for start in range(0, len(seeds), batch_size)]
        begun, pieces = time.perf_counter(), []
        with self._on_device(self._unet):
            velocity = self._window_velocity(line, unwanted, sampling, video.duration)
            for number, group in enumerate(groups):
                pieces.append(
                    sampling_loop.sample_windows(
                        work, group, velocity, _between(tell, *PROGRESS_SHARES, number, len(groups))
                    )
                )
        took = time.perf_counter() - begun
        passes = sampling.steps * len(work.windows) * len(groups)
        facts = {
            "prompt": line,
            "negative_prompt": unwanted,
            **self._metadata(work, sampling),
            "batch_size": len(groups[0]),
            "steps_per_second": round(mean_rate(passes, took), 3),
        }
        with self._on_device(self._components.autoencoder):
            scores = [
                Soundtrack(
                    self._decode_audio(latents, video.duration, work.windows, inpaint_source),
                    metadata={
                        **facts,
                        "window_seeds": [window_seed(seed, number) for number in range(len(work.windows))],
                    },
                )
                for seed, latents in zip(seeds, torch.cat(pieces), strict=True)
            ]
        tell(1.0)
        return scores

    def _plan_sampling(
        self,
        total: int,
        inpaint_source: InpaintSource | None,
        melody: Tensor | None,
        *,
        sampling: DiffusionSampling,
        overlap: float,
        init_sigma: float,
    ) -> sampling_loop.WindowedSampling:
        frames = self.settings.window_samples // self.settings.hop_length
        if inpaint_source is None:
            low, high = 0, total
            latents = torch.zeros(self.settings.autoencoder.latent_dim, total, device=self._device)
        else:
            low, high = self._inpaint_frames(inpaint_source, total)
            latents = self._encode_audio(inpaint_source.mono(self.sample_rate), total)
        keep = torch.ones(total, dtype=torch.bool, device=self._device)
        keep[low:high] = False
        around = min(sample_count(overlap, self.sample_rate) // self.settings.hop_length, frames // 3)
        plan = windows.plan_windows(low, high, total=total, window=frames, overlap=around)
        return sampling_loop.WindowedSampling(plan, frames, latents, keep, melody, init_sigma, sampling)

    def _inpaint_frames(self, source: InpaintSource, total: int) -> tuple[int, int]:
        """The latent frames in which the part lies that is written anew."""
        begin, end = (sample_count(second, self.sample_rate) for second in (source.start, source.end))
        return begin // self.settings.hop_length, min(-(-end // self.settings.hop_length), total)

    def _encode_audio(self, audio: NDArray[np.float32], total: int) -> Tensor:
        """(N,) → (C, `total`), of silence where the sound is over."""
        filled = np.zeros(total * self.settings.hop_length, np.float32)
        filled[: len(audio)] = audio[: len(filled)]
        with self._on_device(self._components.autoencoder):
            return self._components.autoencoder.encode(torch.from_numpy(filled).to(self._device)[None, None])[0]

    def _window_velocity(
        self, prompt: str, negative_prompt: str, sampling: DiffusionSampling, duration: float
    ) -> WindowVelocity:
        """What the model says in a window: it is told when the window begins, and how long the whole is."""

        def velocity(window: Window) -> Velocity:
            begin = seconds_of(window.start * self.settings.hop_length, self.sample_rate)
            wanted = self._condition(prompt, begin, duration)
            against = self._condition(negative_prompt, begin, duration) if negative_prompt else None
            return cfg_velocity(self._unet, CFGCondition(wanted, against, sampling.cfg_scale, sampling.cfg_rescale))

        return velocity

    def _condition(self, text: str, start: float, duration: float) -> Condition:
        """(1, S, D): the words, the second at which the window begins, and how many the piece has."""
        if text not in self._text_cache:
            with self._on_device(self._components.text_encoder.model):
                self._text_cache[text] = self._components.text_encoder.encode([text]).to("cpu")
        tokens, mask, _ = self._text_cache[text]
        numbers = dict(zip(self.settings.number_ranges, (math.floor(start), math.ceil(duration)), strict=False))
        told = {self.settings.text_cond: tokens}
        for name, (low, high) in self.settings.number_ranges.items():
            told[name] = self._components.seconds_embeddings[name][min(max(numbers.get(name, 0), low), high)][
                None, None
            ].float()
        masks = {name: mask if name == self.settings.text_cond else torch.ones(1, 1, dtype=torch.bool) for name in told}
        order = self.settings.cond_order
        whole = Condition(torch.cat([told[name] for name in order], 1), torch.cat([masks[name] for name in order], 1))
        return whole.to(self._device)

    def _decode_audio(
        self, latents: Tensor, duration: float, windows: Sequence[Window], inpaint_source: InpaintSource | None
    ) -> Audio:
        hop, samples = self.settings.hop_length, sample_count(duration, self.sample_rate)
        low = 0 if inpaint_source is None else max(windows[0].output_start - MARGIN_FRAMES, 0)
        high = latents.shape[-1] if inpaint_source is None else windows[-1].output_end + MARGIN_FRAMES
        wave = self._components.autoencoder.decode(latents[None, :, low:high])[0].cpu().numpy()
        if inpaint_source is None:
            return Audio(wave[:, :samples], self.sample_rate)
        whole = np.zeros((1, latents.shape[-1] * hop), np.float32)
        whole[:, low * hop : low * hop + wave.shape[1]] = wave
        return inpaint_source.crossfade_in(Audio(whole[:, :samples], self.sample_rate))

    def _metadata(self, plan: sampling_loop.WindowedSampling, sampling: DiffusionSampling) -> dict[str, Any]:
        hop, rate = self.settings.hop_length, self.sample_rate
        return {
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "sigmas": [sampling.sigma_max if plan.melody is None else plan.init_sigma, sampling.sigma_min],
            "cfg_scale": sampling.cfg_scale,
            "cfg_rescale": sampling.cfg_rescale,
            "windows": [
                [round(seconds_of(frame * hop, rate), 3) for frame in (window.start, window.start + plan.window_frames)]
                for window in plan.windows
            ],
            "precision": next(name for name, dtype in DTYPES.items() if dtype == self._unet.null_tokens.dtype),
            "device": self._device.type,
        }

    @contextmanager
    def _on_device(self, module: nn.Module) -> Iterator[None]:
        """`part` on the device: for as long as it is used where memory is short, else for good."""
        module.to(self._device)
        try:
            yield
        finally:
            if self._low_memory:
                module.to("cpu")


def _looped(melody: Audio, samples: int) -> NDArray[np.float32]:
    """(`samples`,) in mono, from the start again where it is over."""
    return np.take(melody.samples.mean(axis=0), np.arange(samples) % len(melody))


def _between(tell: Callable[[float], None], low: float, high: float, number: int, count: int) -> Told:
    def progress(fraction: float) -> None:
        tell(low + (high - low) * (number + fraction) / count)

    return progress
