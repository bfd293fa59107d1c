"""A music generator of your own: a chord that pulses on the beat, with a bell on every cut.

    uv run infer.py clip.mp4 --generator examples.custom_generator.Pulse --generator.decay 0.3

A generator is a class with the method `generate`. It inherits nothing. The arguments of `__init__` become options of
the command line, with the docstring below as their help.
"""

from __future__ import annotations

import numpy as np

from v2m.core.types import Audio, Controls, ProgressFn, Soundtrack, Tags, Video

SAMPLE_RATE = 48_000
MIDDLE_C = 261.63  # Hz
TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}  # semitones above the tonic


class Pulse:
    """Play the triad of the tags' key once a beat.

    Args:
        decay: Seconds after which a note has lost two thirds of its strength.
        bells: Whether a bell sounds at each cut.
    """

    capabilities = frozenset({"stems"})  # of "stems", "midi", "vocals", "reference", "melody", "inpaint"

    def __init__(self, decay: float = 0.4, bells: bool = True) -> None:
        if decay <= 0:
            raise ValueError(f"decay {decay:g} must be above 0 seconds")
        self.decay = decay
        self.bells = bells

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration` seconds. The same arguments give the same samples."""
        rng = np.random.default_rng(seed)  # the only source of chance: the seed decides everything
        count = round(video.duration * SAMPLE_RATE)
        tonic, mode = tags.tonic_and_mode or (0, "major")
        beats = np.arange(0.0, video.duration, 60 / (tags.tempo or 100.0))
        pulse, bells = np.zeros(count), np.zeros(count)
        for number, beat in enumerate(beats):
            for semitones in TRIADS[mode]:
                octave = rng.integers(-1, 1)
                self._add_note(pulse, beat, MIDDLE_C * 2 ** ((tonic + semitones) / 12 + octave), 0.1)
            if progress is not None:
                progress((number + 1) / len(beats))
        if self.bells:
            for cut in video.visual_features().cuts:  # measured from the picture, without weights
                self._add_note(bells, cut.time, MIDDLE_C * 2 ** (tonic / 12 + 2), 0.2 * cut.strength)
        parts = {"pulse": _stereo(pulse), "bells": _stereo(bells)}
        return Soundtrack(
            audio=_stereo(pulse + bells),
            stems=parts if stems else {},  # they add up to `audio`
            beats=beats,  # leave it out where you do not know: v2m then measures beats and aligns them to the cuts
            downbeats=beats[::4],
            metadata={"style": "pulse", "key": tags.key},  # goes into the sidecar
        )

    def _add_note(self, samples: np.ndarray, start: float, frequency: float, gain: float) -> None:
        """Add a decaying sine to `samples` (N,) from `start` seconds on."""
        first = round(start * SAMPLE_RATE)
        time = np.arange(len(samples) - first) / SAMPLE_RATE
        samples[first:] += gain * np.exp(-time / self.decay) * np.sin(2 * np.pi * frequency * time)


def _stereo(samples: np.ndarray) -> Audio:
    return Audio(np.stack([samples, samples]).astype(np.float32), SAMPLE_RATE)
