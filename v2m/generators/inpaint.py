"""Earlier music of which a part is written anew: what is outside of it stays as it is, sample for sample.

C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import sample_count
from v2m.core.types import Audio, InpaintRequest
from v2m.media import audio as sound_files

FADE_S = 0.05  # seconds over which old and new change places, inside of the part; a quarter of it where it is short
CONTEXT_S = 4.0  # seconds beside the part over which old and new are brought to one level
MIN_CONTEXT_S = 0.5  # seconds of them that say how loud it is


@dataclass(frozen=True)
class InpaintSource:
    """`audio` as long as the video, of which the seconds from `begin` to `end` are to be new."""

    audio: Audio
    start: float
    end: float

    @classmethod
    def load(cls, request: InpaintRequest, duration: float) -> InpaintSource:
        """The music of `asked`, at its file's own rate; of two sides that are the same, one.

        Raises:
            UsageError: The file cannot be read as sound.
        """
        assert request.source_path is not None, "the file has not been looked for"
        rate = sound_files.probe_sample_rate(request.source_path)
        read = sound_files.load(request.source_path, rate, request.source_offset + duration).samples
        sides = read[:1] if np.array_equal(read[0], read[1]) else read
        start, count = sample_count(request.source_offset, rate), sample_count(duration, rate)
        whole = np.zeros((len(sides), count), np.float32)
        there = sides[:, start : start + count]
        whole[:, : there.shape[1]] = there
        return cls(Audio(whole, rate), request.start, request.end)

    def mono(self, rate: int) -> NDArray[np.float32]:
        """(N,) at `rate`."""
        return _resample_to(self.audio, rate).samples.mean(axis=0)

    def crossfade_in(self, generated: Audio) -> Audio:
        """The same with its part out of `new` (C, N), which is as long, at any rate."""
        old, rate = self.audio.samples, self.audio.sample_rate
        begin, end = (min(sample_count(second, rate), old.shape[1]) for second in (self.start, self.end))
        count = end - begin
        ramp = (np.arange(count) + 0.5) / max(min(sample_count(FADE_S, rate), count // 4), 1)
        share = np.minimum(np.minimum(ramp, ramp[::-1]), 1.0).astype(np.float32)
        mixed = old.copy()
        fresh = _resample_to(generated, rate).samples[: generated.channels, begin:end]
        fresh = fresh.mean(axis=0, keepdims=True) if len(old) == 1 else fresh
        mixed[:, begin:end] = share * fresh + (1 - share) * old[:, begin:end]
        return Audio(mixed, rate)


def _resample_to(audio: Audio, rate: int) -> Audio:
    return audio if audio.sample_rate == rate else sound_files.resample(audio, rate)


def level_gain(source: InpaintSource, generated: Audio) -> float:
    """What makes `made` as loud beside the part as what is kept; 1 where nothing is heard there."""
    old, new = _context_power(source.audio, source), _context_power(generated, source)
    return float(np.sqrt(old / new)) if old > 1e-10 and new > 1e-10 else 1.0


def _context_power(audio: Audio, source: InpaintSource) -> float:
    rate, mono = audio.sample_rate, audio.samples.mean(axis=0, dtype=np.float64)
    spans = ((max(source.start - CONTEXT_S, 0.0), source.start), (source.end, source.end + CONTEXT_S))
    sound = np.concatenate([mono[sample_count(low, rate) : sample_count(high, rate)] for low, high in spans])
    return float((sound**2).mean()) if len(sound) >= sample_count(MIN_CONTEXT_S, rate) else 0.0
