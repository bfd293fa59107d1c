"""Percussion on cuts and flashes, so that a model can learn their timing: a drum, a cymbal.

N samples.
"""

from __future__ import annotations

import numpy as np

from v2m.core.timing import every, sample_count
from v2m.core.types import Floats
from v2m.data.synthetic.scenes import Scene

PEAK_TO_RMS = 6.0  # a stroke's peak, over the root mean square of the music
STROKE_S, DRUM_HZ = 0.4, 70.0  # seconds; Hz of the drum
DRUM_DECAY_S, SKIN_DECAY_S, CYMBAL_DECAY_S = 0.09, 0.012, 0.07  # seconds in which each fades to a third


def add_percussion(music: Floats, scene: Scene, sample_rate: int) -> Floats:
    """Music (N,) with a drum on each cut and a cymbal on each flash, within ±1 as a whole."""
    random = np.random.default_rng(scene.seed)
    time = every(sample_rate, STROKE_S)
    drum = np.sin(2 * np.pi * DRUM_HZ * time) * np.exp(-time / DRUM_DECAY_S)
    drum += 0.5 * random.uniform(-1, 1, len(time)) * np.exp(-time / SKIN_DECAY_S)
    cymbal = np.diff(random.uniform(-1, 1, len(time) + 1)) / 2 * np.exp(-time / CYMBAL_DECAY_S)
    level = PEAK_TO_RMS * np.sqrt(np.mean(np.square(music)))
    out = music.copy()
    for stroke, instants in ((drum, scene.cuts), (cymbal, scene.flashes)):
        for instant in instants:
            begin = sample_count(instant, sample_rate)
            end = min(len(out), begin + len(stroke))
            out[begin:end] += level * stroke[: end - begin]
    return out / max(1.0, float(np.abs(out).max()))
