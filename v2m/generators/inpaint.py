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

FADE = 0.05  # seconds over which old and new change places, inside of the part; a quarter of it where it is short
AROUND = 4.0  # seconds beside the part over which old and new are brought to one level
HEARD = 0.5  # seconds of them that say how loud it is


@dataclass(frozen=True)
class Kept:
    """`audio` as long as the video, of which the seconds from `begin` to `end` are to be new."""

    audio: Audio
    begin: float
    end: float

    @classmethod
    def load(cls, asked: InpaintRequest, seconds: float) -> Kept:
        """The music of `asked`, at its file's own rate; of two sides that are the same, one.

        Raises:
            UsageError: The file cannot be read as sound.
        """
        assert asked.source_path is not None, "the file has not been looked for"
        rate = sound_files.probe_sample_rate(asked.source_path)
        read = sound_files.load(asked.source_path, rate, asked.source_offset + seconds).samples
        sides = read[:1] if np.array_equal(read[0], read[1]) else read
        start, count = sample_count(asked.source_offset, rate), sample_count(seconds, rate)
        whole = np.zeros((len(sides), count), np.float32)
        there = sides[:, start : start + count]
        whole[:, : there.shape[1]] = there
        return cls(Audio(whole, rate), asked.start, asked.end)

    def mono(self, rate: int) -> NDArray[np.float32]:
        """(N,) at `rate`."""
        return _at(self.audio, rate).samples.mean(axis=0)

    def with_part(self, new: Audio) -> Audio:
        """The same with its part out of `new` (C, N), which is as long, at any rate."""
        old, rate = self.audio.samples, self.audio.sample_rate
        begin, end = (min(sample_count(second, rate), old.shape[1]) for second in (self.begin, self.end))
        count = end - begin
        ramp = (np.arange(count) + 0.5) / max(min(sample_count(FADE, rate), count // 4), 1)
        share = np.minimum(np.minimum(ramp, ramp[::-1]), 1.0).astype(np.float32)
        mixed = old.copy()
        fresh = _at(new, rate).samples[: new.channels, begin:end]
        fresh = fresh.mean(axis=0, keepdims=True) if len(old) == 1 else fresh
        mixed[:, begin:end] = share * fresh + (1 - share) * old[:, begin:end]
        return Audio(mixed, rate)


def _at(audio: Audio, rate: int) -> Audio:
    return audio if audio.sample_rate == rate else sound_files.resample(audio, rate)


def level(kept: Kept, made: Audio) -> float:
    """What makes `made` as loud beside the part as what is kept; 1 where nothing is heard there."""
    old, new = _power(kept.audio, kept), _power(made, kept)
    return float(np.sqrt(old / new)) if old > 1e-10 and new > 1e-10 else 1.0


def _power(audio: Audio, kept: Kept) -> float:
    rate, mono = audio.sample_rate, audio.samples.mean(axis=0, dtype=np.float64)
    spans = ((max(kept.begin - AROUND, 0.0), kept.begin), (kept.end, kept.end + AROUND))
    sound = np.concatenate([mono[sample_count(low, rate) : sample_count(high, rate)] for low, high in spans])
    return float((sound**2).mean()) if len(sound) >= sample_count(HEARD, rate) else 0.0
