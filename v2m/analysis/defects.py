"""Detection of defects in audio: silence, clipping, a cut-off ending, loops, clicks.

C channels, N samples, H hops of 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2m.analysis.loudness import amplitude_to_db
from v2m.core import timing
from v2m.core.types import Audio, Floats

HOP_S = 0.01
SILENCE_DB = -60.0  # dBFS, root mean square of a hop
FULL_SCALE = 0.999
MIN_CLIPPED_RUN = 3  # samples in a row at full scale, which unclipped music does not reach
ENDING_S = 0.25
MIXER_FADE_S = 0.06  # the mixer's own fade at the end
MIN_LOOP_S = 1.0
LOOP_RATE = 8000  # Hz, for the autocorrelation
MIN_BEND = 1e-3  # of full scale; no smaller bend is a click
CLICK_REACH = 3  # samples on either side that belong to it


@dataclass(frozen=True)
class Silence:
    """The `share` of the time below −60 dBFS, 0–1, and the seconds of it at both ends."""

    share: float
    leading: float
    trailing: float


def measure_silence(audio: Audio) -> Silence:
    """Measure silence; of a silent piece `leading` and `trailing` are both its length."""
    audible = _rms_levels(audio) > SILENCE_DB
    length = timing.samples_to_seconds(len(audio), audio.sample_rate)
    if not audible.any():
        return Silence(1.0, length, length)
    first, last = (int(index) for index in np.flatnonzero(audible)[[0, -1]])
    return Silence(float(1 - audible.mean()), first * HOP_S, max(0.0, length - (last + 1) * HOP_S))


def clipped_share(audio: Audio) -> float:
    """Return the share of samples, 0–1, at full scale for three in a row or more."""
    at_full_scale = np.abs(audio.samples) >= FULL_SCALE
    runs = np.lib.stride_tricks.sliding_window_view(
        np.pad(at_full_scale, ((0, 0), (MIN_CLIPPED_RUN - 1, MIN_CLIPPED_RUN - 1))), MIN_CLIPPED_RUN, axis=1
    ).all(axis=2)
    inside = np.lib.stride_tricks.sliding_window_view(runs, MIN_CLIPPED_RUN, axis=1).any(axis=2)
    return float(inside.mean()) if inside.size else 0.0


def ending_level(audio: Audio) -> float | None:
    """Return the level of the last 250 ms before the mixer's fade, in dB relative to the piece.

    About 0 where music is cut off, −20 and below where it has rung out; None for silence or less than a second.
    """
    end = len(audio) - timing.seconds_to_samples(MIXER_FADE_S, audio.sample_rate)
    start = end - timing.seconds_to_samples(ENDING_S, audio.sample_rate)
    if len(audio) < audio.sample_rate or not audio.samples.any():
        return None
    piece_rms = np.sqrt(np.mean(np.square(audio.samples, dtype=float)))
    ending_rms = np.sqrt(np.mean(np.square(audio.samples[:, start:end], dtype=float)))
    return float(max(amplitude_to_db(ending_rms / piece_rms), SILENCE_DB - 40))


def find_loop(audio: Audio) -> tuple[float, float]:
    """Return how exactly audio repeats itself, 0–1, and after how many seconds (1 to half the piece).

    The highest normalized autocorrelation below 2 kHz: 1 where a recording is repeated, near 0 in music that is played
    again, since its phases differ. (0, 0) for silence or less than two seconds.
    """
    step = max(1, audio.sample_rate // LOOP_RATE)
    mono = audio.samples.mean(axis=0)
    coarse = np.add.reduceat(mono, np.arange(0, len(mono), step)).astype(float) if len(mono) else mono.astype(float)
    first, last = timing.seconds_to_samples(MIN_LOOP_S, audio.sample_rate) // step, len(coarse) // 2
    if last <= first or not coarse.any():
        return 0.0, 0.0
    power = np.abs(np.fft.rfft(coarse, 2 * len(coarse))) ** 2
    autocorrelation = np.fft.irfft(power)[first:last]
    energy = np.concatenate([[0.0], np.cumsum(coarse**2)])
    lags = np.arange(first, last)
    norms = np.sqrt(energy[len(coarse) - lags] * (energy[-1] - energy[lags]))
    similarity = np.where(norms > 1e-9 * energy[-1], autocorrelation / np.maximum(norms, 1e-12), 0.0)
    best = int(similarity.argmax())
    return float(np.clip(similarity[best], 0, 1)), timing.samples_to_seconds(int(lags[best]) * step, audio.sample_rate)


def find_click(audio: Audio) -> tuple[float, float]:
    """Return the worst click as (ratio of its bend to the sharpest within 5 ms around it, time).

    A bend is the second difference of the samples; the three samples next to it are left out. A struck note sustains
    and gives about 1, music less than some 8; pieces joined without a fade give tens. (0, 0) for silence.
    """
    bend = np.abs(np.diff(audio.samples, 2, axis=1)).max(axis=0, initial=0.0)
    reach, size = (timing.seconds_to_samples(part * HOP_S, audio.sample_rate) for part in (0.5, 2.0))
    if len(bend) < size + 2 * reach or bend.max() < MIN_BEND:
        return 0.0, 0.0
    blocks = bend[reach:-reach][: (len(bend) - 2 * reach) // size * size].reshape(-1, size)
    candidates = reach + np.arange(len(blocks)) * size + blocks.argmax(axis=1)
    neighbors = np.concatenate([np.arange(-reach, -CLICK_REACH), np.arange(CLICK_REACH + 1, reach)])
    around = np.maximum(bend[candidates[:, None] + neighbors].max(axis=1), MIN_BEND / 10)
    ratio = np.where(bend[candidates] > MIN_BEND, bend[candidates] / around, 0.0)
    worst = int(ratio.argmax())
    return float(ratio[worst]), timing.samples_to_seconds(int(candidates[worst]) + 1, audio.sample_rate)


def _rms_levels(audio: Audio) -> Floats:
    """(H,) dBFS, root mean square over all channels."""
    hop = timing.seconds_to_samples(HOP_S, audio.sample_rate)
    count = max(1, len(audio) // hop)
    power = np.square(audio.samples[:, : count * hop], dtype=float).mean(axis=0)
    return amplitude_to_db(np.sqrt(np.pad(power, (0, count * hop - len(power))).reshape(count, -1).mean(axis=1)))
