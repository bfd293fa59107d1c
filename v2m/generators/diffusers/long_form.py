"""A piece from begin to end: goes of the pipeline that go on from each other, and parts that are written anew.

B takes, C channels, N samples. What lies inside a part fades over into what lies outside; nothing outside changes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v2m.core.progress import sub_progress
from v2m.core.timing import sample_count, seconds_of
from v2m.core.types import Audio, ProgressFn
from v2m.generators.diffusers.ace_step import AceStepAdapter
from v2m.generators.diffusers.adapter import GenerationRequest, PipelineAdapter
from v2m.generators.diffusers.pipeline_info import PipelineInfo, PipelineKind
from v2m.generators.diffusers.stable_audio import StableAudioAdapter
from v2m.generators.diffusers.stable_audio_3 import StableAudio3Adapter
from v2m.models.inference.windows import Window, plan_windows, window_seed

ADAPTERS: dict[PipelineKind, Any] = {
    "AceStepPipeline": AceStepAdapter,
    "StableAudioPipeline": StableAudioAdapter,
    "StableAudio3Pipeline": StableAudio3Adapter,
}
FADE_S = 0.05  # seconds from the one sound to the other
OVERLAP = 0.25  # share of a go that the one before it has written
DISCARDED_TAIL = (
    0.1  # share at its end that is thrown away where it is not the last: pipelines let their music end there
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioConditions:
    """What is to be followed, at the pipeline's rate: a melody, repeated where it is too short; a style."""

    melody: Audio | None = None
    reference: Audio | None = None


class LongFormGenerator:
    """A pipeline that writes pieces.

    Args:
        pipeline: diffusers' own.
        card: What it can do.
        told: Its arguments.
        strength: 0–1, how closely a melody is followed.
        sounds: What else it is to follow.
    """

    def __init__(
        self,
        pipeline: Any,
        info: PipelineInfo,
        arguments: dict[str, Any],
        melody_strength: float,
        conditions: AudioConditions,
    ) -> None:
        self._adapter: PipelineAdapter = ADAPTERS[info.kind](pipeline)
        given = {name: value for name, value in arguments.items() if name in {"num_inference_steps", "guidance_scale"}}
        chosen = {name: value for name, value in given.items() if value is not None}
        self.arguments = {**arguments, **self._adapter.defaults(), **chosen}
        self._info, self._melody_strength, self._conditions = info, melody_strength, conditions

    def generate(self, duration: float, seeds: Sequence[int], progress: ProgressFn) -> list[Audio]:
        """A piece of exactly `seconds` for each seed."""
        card, rate = self._info, self._info.sample_rate
        whole = sample_count(duration, rate)
        longest, shortest = sample_count(card.max_duration, rate), sample_count(card.min_duration, rate)
        if whole <= longest:
            job = self._request(0, max(whole, shortest), seeds, 0)
            return self._to_audio(self._run_pipeline(job, progress)[..., :whole])
        goes, tail = _plan_windows(whole, longest)
        written = torch.zeros(len(seeds), card.channels, 0)
        for number, (begin, end, stands) in enumerate(goes):
            job = self._request(begin, end + tail - begin, seeds, number)
            if number:
                kept = torch.nn.functional.pad(written[..., begin:], (0, tail + end - begin - stands))
                job = replace(job, source=kept, inpaint_range=(stands, job.num_samples))
            sound = self._run_pipeline(job, sub_progress(progress, number / len(goes), (number + 1) / len(goes)))
            used = sound if end == whole - tail else sound[..., : end - begin]
            written = _append_crossfaded(written, used, begin, sample_count(FADE_S, rate))
        return self._to_audio(written)

    def windows(self, duration: float) -> list[list[float]]:
        """Seconds from which to which each go's sound is used first in a piece of `seconds`."""
        rate = self._info.sample_rate
        whole, longest = sample_count(duration, rate), sample_count(self._info.max_duration, rate)
        if whole <= longest:
            return [[0.0, duration]]
        windows, tail = _plan_windows(whole, longest)
        ends = [*(window.end for window in windows[:-1]), whole]
        begins = [window.start + window.prompt for window in windows]
        assert ends[-1] == windows[-1].end + tail, "the last go ends with the piece"
        return [[seconds_of(low, rate), seconds_of(high, rate)] for low, high in zip(begins, ends, strict=True)]

    def inpaint(
        self, previous: Audio, time_range: tuple[float, float], seeds: Sequence[int], progress: ProgressFn
    ) -> list[Audio]:
        """`previous` with the seconds from one to another of `span` written anew, once for each seed.

        What the pipeline has to go on is the sound around them, as much as it can hear in one go.
        """
        rate, whole = self._info.sample_rate, len(previous)
        first, last = (min(sample_count(second, rate), whole) for second in time_range)
        longest = min(sample_count(self._info.max_duration, rate), whole)
        begin = min(max((first + last - longest) // 2, 0), whole - longest)
        sound = torch.from_numpy(previous.samples)[None].expand(len(seeds), -1, -1)  # (B, C, N)
        job = self._request(begin, max(longest, sample_count(self._info.min_duration, rate)), seeds, 0)
        kept = torch.nn.functional.pad(sound[..., begin : begin + longest], (0, job.num_samples - longest))
        new = self._run_pipeline(replace(job, source=kept, inpaint_range=(first - begin, last - begin)), progress)
        inside = new[..., first - begin : last - begin]
        inside = inside / inside.abs().amax((1, 2), keepdim=True).clamp(min=1.0)
        return [
            Audio(each.numpy(), rate) for each in _insert_crossfaded(sound, inside, first, sample_count(FADE_S, rate))
        ]

    def _run_pipeline(self, request: GenerationRequest, progress: ProgressFn) -> Tensor:
        return self._adapter.generate(self.arguments, request, self._melody_strength, progress)

    def _request(self, begin: int, num_samples: int, seeds: Sequence[int], index: int) -> GenerationRequest:
        melody, reference = self._conditions.melody, self._conditions.reference
        places = np.arange(begin, begin + num_samples)
        return GenerationRequest(
            num_samples,
            tuple(window_seed(seed, index) for seed in seeds),
            melody=None if melody is None else self._to_tensor(melody.samples[:, places % len(melody)]),
            reference=None if reference is None else self._to_tensor(reference.samples),
        )

    def _to_tensor(self, samples: Any) -> Tensor:
        sound = torch.from_numpy(samples)
        return sound.mean(0, keepdim=True) if self._info.channels == 1 else sound

    def _to_audio(self, sound: Tensor) -> list[Audio]:
        """(B, C, N) within ±1."""
        peaks = sound.abs().amax((1, 2))
        for peak in peaks[peaks > 1]:
            logger.info("the music peaked at %.2f and was made quieter", peak)
        quiet = sound / peaks.clamp(min=1.0)[:, None, None]
        return [Audio(each.numpy(), self._info.sample_rate) for each in quiet]


def _plan_windows(whole: int, longest: int) -> tuple[list[Window], int]:
    """What each go adds to a piece of `whole` samples, and how many more it writes, of no use but in the last."""
    tail = int(longest * DISCARDED_TAIL)
    return plan_windows(whole - tail, longest - tail, int(longest * (1 - OVERLAP)) - tail), tail


def _append_crossfaded(before: Tensor, part: Tensor, begin: int, fade: int) -> Tensor:
    """`before` (B, C, N), and `part`, whose first sample is number `begin` of the whole, from where it ends."""
    done = before.shape[-1]
    if not done:
        return part
    mixed = min(fade, done - begin)
    ramp = torch.linspace(0, 1, mixed)
    common = before[..., done - mixed :] * (1 - ramp) + part[..., done - begin - mixed : done - begin] * ramp
    return torch.cat([before[..., : done - mixed], common, part[..., done - begin :]], dim=-1)


def _insert_crossfaded(sound: Tensor, inside: Tensor, first: int, fade: int) -> Tensor:
    """`sound` (B, C, N) with `inside` from sample `first` on, which fades in and, unless it is the end, out."""
    length = inside.shape[-1]
    last = first + length
    mixed = min(fade, length // 2)
    share = torch.ones(length)
    if first > 0:
        share[:mixed] = torch.linspace(0, 1, mixed)
    if last < sound.shape[-1]:
        share[length - mixed :] = torch.linspace(1, 0, mixed)
    between = inside * share + sound[..., first:last] * (1 - share)
    return torch.cat([sound[..., :first], between, sound[..., last:]], dim=-1)
