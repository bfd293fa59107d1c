"""Inpainting of earlier music: a range is replaced, everything outside stays sample for sample.

C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, InpaintRequest
from v2m.media import audio as sound_files

FADE_S = 0.05  # of the crossfades inside the range; at most a quarter of it
CONTEXT_S = 4.0  # beside the range, over which the levels of old and new are matched
MIN_CONTEXT_S = 0.5  # less of it gives no level


@dataclass(frozen=True)
class InpaintSource:
    """Music as long as the video, and the range of seconds to replace."""

    audio: Audio
    start: float
    end: float

    @classmethod
    def load(cls, request: InpaintRequest, duration: float) -> InpaintSource:
        """Load the music of `request` at the file's own rate; two equal channels become one.

        Raises UsageError where the file cannot be read as sound.
        """
        assert request.source_path is not None, "resolve_inpaint_source fills it in"
        rate = sound_files.probe_sample_rate(request.source_path)
        samples = sound_files.load(request.source_path, rate, request.source_offset + duration).samples
        samples = samples[:1] if np.array_equal(samples[0], samples[1]) else samples
        start, count = seconds_to_samples(request.source_offset, rate), seconds_to_samples(duration, rate)
        padded = np.zeros((len(samples), count), np.float32)
        samples = samples[:, start : start + count]
        padded[:, : samples.shape[1]] = samples
        return cls(Audio(padded, rate), request.start, request.end)

    def mono(self, rate: int) -> NDArray[np.float32]:
        """The mean of the channels (N,) at `rate`."""
        return _resample_to(self.audio, rate).samples.mean(axis=0)

    def crossfade_in(self, generated: Audio) -> Audio:
        """Replace the range by that of `generated` (C, N), which is as long, at any rate."""
        old, rate = self.audio.samples, self.audio.sample_rate
        start, end = (min(seconds_to_samples(second, rate), old.shape[1]) for second in (self.start, self.end))
        count = end - start
        ramp = (np.arange(count) + 0.5) / max(min(seconds_to_samples(FADE_S, rate), count // 4), 1)
        weight = np.minimum(np.minimum(ramp, ramp[::-1]), 1.0).astype(np.float32)
        new = _resample_to(generated, rate).samples[: generated.channels, start:end]
        new = new.mean(axis=0, keepdims=True) if len(old) == 1 else new
        mix = old.copy()
        mix[:, start:end] = weight * new + (1 - weight) * old[:, start:end]
        return Audio(mix, rate)


def inpaint_metadata(request: InpaintRequest | None) -> dict[str, Any]:
    """The sidecar's entries about an inpainting request; none without one."""
    if request is None:
        return {}
    return {"inpainted": [request.start, request.end], "inpaint_source": str(request.source_path)}


def _resample_to(audio: Audio, rate: int) -> Audio:
    return audio if audio.sample_rate == rate else sound_files.resample(audio, rate)


def level_gain(source: InpaintSource, generated: Audio) -> float:
    """Gain that matches `generated` to the source's level beside the range; 1 where either is silent."""
    old, new = _context_power(source.audio, source), _context_power(generated, source)
    return float(np.sqrt(old / new)) if old > 1e-10 and new > 1e-10 else 1.0


def _context_power(audio: Audio, source: InpaintSource) -> float:
    rate, mono = audio.sample_rate, audio.samples.mean(axis=0, dtype=np.float64)
    ranges = ((max(source.start - CONTEXT_S, 0.0), source.start), (source.end, source.end + CONTEXT_S))
    context = np.concatenate(
        [mono[seconds_to_samples(start, rate) : seconds_to_samples(end, rate)] for start, end in ranges]
    )
    return float((context**2).mean()) if len(context) >= seconds_to_samples(MIN_CONTEXT_S, rate) else 0.0
