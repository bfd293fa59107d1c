"""Excerpt of a recording whose style MusicGen-Style follows: user options, and reading it.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.timing import samples_to_seconds
from v2m.core.types import Audio
from v2m.media import audio as sound_files

STYLE_MODEL = "facebook/musicgen-style"  # the published checkpoint that has a style conditioner
MIN_SECONDS, MAX_SECONDS = 1.5, 4.5  # of an excerpt: those of training
MAX_SOURCE_S = 300.0  # of a recording from which an excerpt is drawn
MAX_EVAL_Q = 6  # codebooks of the published quantizer


@dataclass(frozen=True)
class StyleOptions:
    """Options of an excerpt; UsageError for those that no model can follow.

    Args:
        file: Sound or video; None is no style.
        start: Second of the file at which the excerpt starts; None draws it by the seed.
        seconds: Length of the excerpt.
        eval_q: Codebooks of the quantizer that are used; None is the checkpoint's own number.
    """

    file: Path | None = None
    start: float | None = None
    seconds: float = 3.0
    eval_q: int | None = None

    def __post_init__(self) -> None:
        if not MIN_SECONDS <= self.seconds <= MAX_SECONDS:
            raise UsageError(
                f"style_seconds {self.seconds:g} must lie between {MIN_SECONDS:g} and {MAX_SECONDS:g}: the excerpts of "
                "training"
            )
        if self.start is not None and not 0 <= self.start < MAX_SOURCE_S:
            raise UsageError(f"style_start {self.start:g} s must lie between 0 and {MAX_SOURCE_S:g}")
        if self.eval_q is not None and not 1 <= self.eval_q <= MAX_EVAL_Q:
            raise UsageError(f"eval_q {self.eval_q} must be 1 to {MAX_EVAL_Q}")

    def read(self, sample_rate: int, seed: int) -> tuple[Audio, float]:
        """Read the excerpt, in stereo at `sample_rate`; also return its first second.

        Raises UsageError where the file has no sound, is shorter than the excerpt, or silent during all of it.
        """
        assert self.file is not None, "there is no style to read"
        limit = MAX_SOURCE_S if self.start is None else self.start + self.seconds
        sound = sound_files.load(self.file, sample_rate, limit)
        count = int(self.seconds * sample_rate)
        first = int(self.start * sample_rate) if self.start is not None else _draw_start(sound, count, seed)
        if len(sound) < first + count:
            length, start = samples_to_seconds(len(sound), sample_rate), self.start or 0.0
            raise UsageError(
                f"{str(self.file)!r} lasts {length:.2f} s, too short for a style of {self.seconds:g} s from second "
                f"{start:g} on: give a longer file, or another style_seconds or style_start"
            )
        excerpt = Audio(sound.samples[:, first : first + count], sample_rate)
        second = samples_to_seconds(first, sample_rate)
        if not excerpt.samples.any():
            raise UsageError(f"{str(self.file)!r} is silent from second {second:.2f} on: give another style_start")
        return excerpt, second


def _draw_start(sound: Audio, count: int, seed: int) -> int:
    """Draw the first sample of an excerpt of `count` samples by the seed.

    It holds a sample that is not silent.
    """
    generator = np.random.default_rng(seed)
    middle = int(generator.choice(np.flatnonzero(sound.samples.any(axis=0))))
    return max(min(middle - int(generator.integers(count)), len(sound) - count), 0)
