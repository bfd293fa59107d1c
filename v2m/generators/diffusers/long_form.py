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

from v2m.core.timing import sample_count, seconds_of
from v2m.core.types import Audio, ProgressFn
from v2m.generators.diffusers.ace_step import AceStep
from v2m.generators.diffusers.adapter import Job, Writer
from v2m.generators.diffusers.pipeline_info import Card, Kind
from v2m.generators.diffusers.stable_audio import StableAudio
from v2m.generators.diffusers.stable_audio_3 import StableAudio3
from v2m.models.inference.windows import Window, plan_windows, sub_progress, window_seed

WRITERS: dict[Kind, Any] = {
    "AceStepPipeline": AceStep,
    "StableAudioPipeline": StableAudio,
    "StableAudio3Pipeline": StableAudio3,
}
FADE = 0.05  # seconds from the one sound to the other
IN_COMMON = 0.25  # share of a go that the one before it has written
ENDING = 0.1  # share at its end that is thrown away where it is not the last: pipelines let their music end there

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sounds:
    """What is to be followed, at the pipeline's rate: a melody, repeated where it is too short; a style."""

    melody: Audio | None = None
    reference: Audio | None = None


class Piece:
    """A pipeline that writes pieces.

    Args:
        pipeline: diffusers' own.
        card: What it can do.
        told: Its arguments.
        strength: 0–1, how closely a melody is followed.
        sounds: What else it is to follow.
    """

    def __init__(self, pipeline: Any, card: Card, told: dict[str, Any], strength: float, sounds: Sounds) -> None:
        self._writer: Writer = WRITERS[card.kind](pipeline)
        given = {name: value for name, value in told.items() if name in {"num_inference_steps", "guidance_scale"}}
        chosen = {name: value for name, value in given.items() if value is not None}
        self.told = {**told, **self._writer.defaults(), **chosen}
        self._card, self._strength, self._sounds = card, strength, sounds

    def write(self, seconds: float, seeds: Sequence[int], progress: ProgressFn) -> list[Audio]:
        """A piece of exactly `seconds` for each seed."""
        card, rate = self._card, self._card.sample_rate
        whole = sample_count(seconds, rate)
        longest, shortest = sample_count(card.longest, rate), sample_count(card.shortest, rate)
        if whole <= longest:
            job = self._job(0, max(whole, shortest), seeds, 0)
            return self._audio(self._run(job, progress)[..., :whole])
        goes, tail = _goes(whole, longest)
        written = torch.zeros(len(seeds), card.channels, 0)
        for number, (begin, end, stands) in enumerate(goes):
            job = self._job(begin, end + tail - begin, seeds, number)
            if number:
                kept = torch.nn.functional.pad(written[..., begin:], (0, tail + end - begin - stands))
                job = replace(job, kept=kept, span=(stands, job.samples))
            sound = self._run(job, sub_progress(progress, number / len(goes), (number + 1) / len(goes)))
            used = sound if end == whole - tail else sound[..., : end - begin]
            written = _over(written, used, begin, sample_count(FADE, rate))
        return self._audio(written)

    def goes(self, seconds: float) -> list[list[float]]:
        """Seconds from which to which each go's sound is used first in a piece of `seconds`."""
        rate = self._card.sample_rate
        whole, longest = sample_count(seconds, rate), sample_count(self._card.longest, rate)
        if whole <= longest:
            return [[0.0, seconds]]
        windows, tail = _goes(whole, longest)
        ends = [*(window.end for window in windows[:-1]), whole]
        begins = [window.start + window.prompt for window in windows]
        assert ends[-1] == windows[-1].end + tail, "the last go ends with the piece"
        return [[seconds_of(low, rate), seconds_of(high, rate)] for low, high in zip(begins, ends, strict=True)]

    def rewrite(
        self, previous: Audio, span: tuple[float, float], seeds: Sequence[int], progress: ProgressFn
    ) -> list[Audio]:
        """`previous` with the seconds from one to another of `span` written anew, once for each seed.

        What the pipeline has to go on is the sound around them, as much as it can hear in one go.
        """
        rate, whole = self._card.sample_rate, len(previous)
        first, last = (min(sample_count(second, rate), whole) for second in span)
        longest = min(sample_count(self._card.longest, rate), whole)
        begin = min(max((first + last - longest) // 2, 0), whole - longest)
        sound = torch.from_numpy(previous.samples)[None].expand(len(seeds), -1, -1)  # (B, C, N)
        job = self._job(begin, max(longest, sample_count(self._card.shortest, rate)), seeds, 0)
        kept = torch.nn.functional.pad(sound[..., begin : begin + longest], (0, job.samples - longest))
        new = self._run(replace(job, kept=kept, span=(first - begin, last - begin)), progress)
        inside = new[..., first - begin : last - begin]
        inside = inside / inside.abs().amax((1, 2), keepdim=True).clamp(min=1.0)
        return [Audio(each.numpy(), rate) for each in _between(sound, inside, first, sample_count(FADE, rate))]

    def _run(self, job: Job, progress: ProgressFn) -> Tensor:
        return self._writer.write(self.told, job, self._strength, progress)

    def _job(self, begin: int, samples: int, seeds: Sequence[int], number: int) -> Job:
        melody, reference = self._sounds.melody, self._sounds.reference
        places = np.arange(begin, begin + samples)
        return Job(
            samples,
            tuple(window_seed(seed, number) for seed in seeds),
            melody=None if melody is None else self._heard(melody.samples[:, places % len(melody)]),
            reference=None if reference is None else self._heard(reference.samples),
        )

    def _heard(self, samples: Any) -> Tensor:
        sound = torch.from_numpy(samples)
        return sound.mean(0, keepdim=True) if self._card.channels == 1 else sound

    def _audio(self, sound: Tensor) -> list[Audio]:
        """(B, C, N) within ±1."""
        peaks = sound.abs().amax((1, 2))
        for peak in peaks[peaks > 1]:
            logger.info("the music peaked at %.2f and was made quieter", peak)
        quiet = sound / peaks.clamp(min=1.0)[:, None, None]
        return [Audio(each.numpy(), self._card.sample_rate) for each in quiet]


def _goes(whole: int, longest: int) -> tuple[list[Window], int]:
    """What each go adds to a piece of `whole` samples, and how many more it writes, of no use but in the last."""
    tail = int(longest * ENDING)
    return plan_windows(whole - tail, longest - tail, int(longest * (1 - IN_COMMON)) - tail), tail


def _over(before: Tensor, part: Tensor, begin: int, fade: int) -> Tensor:
    """`before` (B, C, N), and `part`, whose first sample is number `begin` of the whole, from where it ends."""
    done = before.shape[-1]
    if not done:
        return part
    mixed = min(fade, done - begin)
    ramp = torch.linspace(0, 1, mixed)
    common = before[..., done - mixed :] * (1 - ramp) + part[..., done - begin - mixed : done - begin] * ramp
    return torch.cat([before[..., : done - mixed], common, part[..., done - begin :]], dim=-1)


def _between(sound: Tensor, inside: Tensor, first: int, fade: int) -> Tensor:
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
