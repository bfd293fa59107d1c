"""Music of known beats: a chord for each bar, a bass note that opens it, and a noise on every beat."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from v2m.core.types import Audio, Floats

CHORDS = ((60, 64, 67), (57, 60, 64), (53, 57, 60), (55, 59, 62))


def bars(beats: Floats, is_downbeat: np.ndarray, seconds: float, rate: int = 32000, seed: int = 0) -> Audio:
    """Synthesize music; `is_downbeat` (B,) marks the `beats` (B,) that open a bar."""
    random = np.random.default_rng(seed)
    sound = 1e-3 * random.standard_normal(round(seconds * rate))
    starts, change = np.append(beats[is_downbeat], seconds), np.arange(round(seconds * rate)) / rate
    for number, (low, high) in enumerate(pairwise(starts)):
        span = slice(round(low * rate), round(high * rate))
        for pitch in CHORDS[number % len(CHORDS)]:
            sound[span] += 0.05 * np.sin(2 * np.pi * _hertz(pitch) * change[span])
        _add(sound, low, 0.5 * _decay(0.25, rate) * np.sin(2 * np.pi * 65 * np.arange(rate // 4) / rate), rate)
    for beat in beats:
        _add(sound, beat, 0.2 * _decay(0.05, rate) * random.standard_normal(rate // 20), rate)
    return Audio(np.stack([sound, sound]).astype(np.float32), rate)


def _hertz(pitch: int) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def _decay(seconds: float, rate: int) -> Floats:
    return np.exp(-5 * np.linspace(0, 1, int(seconds * rate)))


def _add(sound: Floats, time: float, part: Floats, rate: int) -> None:
    at = round(time * rate)
    length = min(len(part), len(sound) - at)
    sound[at : at + length] += part[:length]
