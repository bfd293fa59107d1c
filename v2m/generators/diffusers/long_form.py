"""Long-form generation and inpainting over a diffusers pipeline, in windows that continue each other.

B candidates, C channels, N samples. An inpainted range crossfades inside itself; nothing outside of it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from v2m.core.audio_ops import loop_samples, peak_excess
from v2m.core.progress import sub_progress
from v2m.core.timing import samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, ProgressFn
from v2m.generators.diffusers.adapters import ADAPTERS, GenerationRequest
from v2m.generators.diffusers.pipeline_info import PipelineInfo
from v2m.models.inference.windows import Window, plan_windows, window_seed

FADE_S = 0.05  # of the crossfades
OVERLAP = 0.25  # share of a window that the one before it has generated
DISCARDED_TAIL = 0.1  # share of all windows but the last that is discarded: pipelines end their music there


class LongFormGenerator:
    """A pipeline extended to any duration.

    Of `arguments`, None stands for the recommended number of steps and guidance scale. `melody` (repeated where it is
    too short, followed by `melody_strength`, 0 to 1) and `reference` (of style) are at the pipeline's rate.
    """

    def __init__(
        self,
        pipeline: Any,
        info: PipelineInfo,
        arguments: dict[str, Any],
        *,
        melody: Audio | None,
        melody_strength: float,
        reference: Audio | None = None,
    ) -> None:
        self._adapter = ADAPTERS[info.kind](pipeline)
        defaults = {name: value for name, value in self._adapter.defaults().items() if arguments.get(name) is None}
        self.arguments = {**arguments, **defaults}
        self._info, self._melody, self._melody_strength, self._reference = info, melody, melody_strength, reference

    def generate(self, duration: float, seeds: Sequence[int], progress: ProgressFn) -> list[Audio]:
        """Generate a piece of exactly `duration` seconds for each seed."""
        info, rate = self._info, self._info.sample_rate
        total = seconds_to_samples(duration, rate)
        longest, shortest = seconds_to_samples(info.max_duration, rate), seconds_to_samples(info.min_duration, rate)
        if total <= longest:
            request = self._request(0, max(total, shortest), seeds, 0)
            return self._to_audio(self._adapter.generate(self.arguments, request, progress)[..., :total])
        windows, tail = _plan_windows(total, longest)
        piece = torch.zeros(len(seeds), info.channels, 0)
        for index, (start, end, prompt) in enumerate(windows):
            request = self._request(start, end + tail - start, seeds, index)
            if index:
                source = torch.nn.functional.pad(piece[..., start:], (0, tail + end - start - prompt))
                request = replace(request, source=source, inpaint_range=(prompt, request.num_samples))
            part = sub_progress(progress, index / len(windows), (index + 1) / len(windows))
            wave = self._adapter.generate(self.arguments, request, part)
            wave = wave if end == total - tail else wave[..., : end - start]  # the music ends in the last one's tail
            piece = _append_crossfaded(piece, wave, start, seconds_to_samples(FADE_S, rate))
        return self._to_audio(piece)

    def windows(self, duration: float) -> list[list[float]]:
        """Ranges in seconds of a piece of `duration`, by the window whose audio is used there."""
        rate = self._info.sample_rate
        total, longest = seconds_to_samples(duration, rate), seconds_to_samples(self._info.max_duration, rate)
        if total <= longest:
            return [[0.0, duration]]
        windows, _ = _plan_windows(total, longest)
        bounds = [0, *(window.end for window in windows[:-1]), total]
        return [[samples_to_seconds(start, rate), samples_to_seconds(end, rate)] for start, end in pairwise(bounds)]

    def inpaint(
        self, previous: Audio, time_range: tuple[float, float], seeds: Sequence[int], progress: ProgressFn
    ) -> list[Audio]:
        """Replace `time_range` (seconds) of `previous`, once for each seed.

        The pipeline gets the audio around it, as much as fits into one call.
        """
        rate, total = self._info.sample_rate, len(previous)
        first, last = (min(seconds_to_samples(second, rate), total) for second in time_range)
        length = min(seconds_to_samples(self._info.max_duration, rate), total)
        start = min(max((first + last - length) // 2, 0), total - length)
        old = torch.from_numpy(previous.samples)[None].expand(len(seeds), -1, -1)  # (B, C, N)
        request = self._request(start, max(length, seconds_to_samples(self._info.min_duration, rate)), seeds, 0)
        source = torch.nn.functional.pad(old[..., start : start + length], (0, request.num_samples - length))
        request = replace(request, source=source, inpaint_range=(first - start, last - start))
        new = self._adapter.generate(self.arguments, request, progress)[..., first - start : last - start]
        new = new / new.abs().amax((1, 2), keepdim=True).clamp(min=1.0)
        pieces = _insert_crossfaded(old, new, first, seconds_to_samples(FADE_S, rate))
        return [Audio(piece.numpy(), rate) for piece in pieces]

    def _request(self, start: int, num_samples: int, seeds: Sequence[int], index: int) -> GenerationRequest:
        melody, reference = None, None
        if self._melody is not None:
            melody = self._to_tensor(loop_samples(self._melody.samples, start, start + num_samples))
        if self._reference is not None:
            reference = self._to_tensor(self._reference.samples)
        seeds = tuple(window_seed(seed, index) for seed in seeds)
        return GenerationRequest(num_samples, seeds, melody, self._melody_strength, reference)

    def _to_tensor(self, samples: Any) -> Tensor:
        wave = torch.from_numpy(samples)
        return wave.mean(0, keepdim=True) if self._info.channels == 1 else wave

    def _to_audio(self, waves: Tensor) -> list[Audio]:
        """Audio of (B, C, N), each attenuated to ±1 where needed."""
        return [Audio(wave / peak_excess(wave), self._info.sample_rate) for wave in waves.numpy()]


def _plan_windows(total: int, longest: int) -> tuple[list[Window], int]:
    """Windows for `total` samples, and the length of the tail that all but the last discard."""
    tail = int(longest * DISCARDED_TAIL)
    return plan_windows(total - tail, longest - tail, int(longest * (1 - OVERLAP)) - tail), tail


def _append_crossfaded(piece: Tensor, wave: Tensor, start: int, fade: int) -> Tensor:
    """Append to `piece` (B, C, N) the rest of `wave`, whose first sample is number `start` of the piece."""
    length = piece.shape[-1]
    if not length:
        return wave
    fade = min(fade, length - start)
    ramp = torch.linspace(0, 1, fade)
    overlap = piece[..., length - fade :] * (1 - ramp) + wave[..., length - start - fade : length - start] * ramp
    return torch.cat([piece[..., : length - fade], overlap, wave[..., length - start :]], dim=-1)


def _insert_crossfaded(old: Tensor, new: Tensor, first: int, fade: int) -> Tensor:
    """Replace `old` (B, C, N) from sample `first` on by `new`, crossfaded where `old` goes on."""
    length = new.shape[-1]
    last = first + length
    fade = min(fade, length // 2)
    weight = torch.ones(length)
    if first > 0:
        weight[:fade] = torch.linspace(0, 1, fade)
    if last < old.shape[-1]:
        weight[length - fade :] = torch.linspace(1, 0, fade)
    mix = new * weight + old[..., first:last] * (1 - weight)
    return torch.cat([old[..., :first], mix, old[..., last:]], dim=-1)
