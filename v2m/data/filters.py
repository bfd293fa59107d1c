"""Which videos nothing can be learnt from, and why. A reason is a stable word that the manifest counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import codec_frames, sample_count, seconds_of
from v2m.core.types import VisualFeatures
from v2m.data.config import Settings

BLOCK = 0.1  # seconds in which sound is or is not silent
QUIET = 1e-3  # −60 dBFS
DARKENING = 0.02  # change of brightness that a still picture does not have


class DropError(Exception):
    """The video is left out for `reason`: too_short, too_long, no_sound, silent, lengths_differ, static, unreadable,
    failed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def check_length(seconds: float, settings: Settings) -> None:
    """Raises DropError, as all here do."""
    if seconds < settings.shortest:
        raise DropError("too_short", f"{seconds:.2f} s, less than {settings.shortest:g} s")
    if seconds > settings.longest:
        raise DropError("too_long", f"{seconds:.0f} s, more than {settings.longest:g} s")


def check_lengths(picture: float, sound: float, settings: Settings) -> None:
    """Seconds of both, of which the shorter will be used."""
    if min(picture, sound) < settings.overlap * max(picture, sound):
        raise DropError("lengths_differ", f"{picture:.2f} s of picture, {sound:.2f} s of sound")


def check_sound(wave: NDArray[np.float32], sample_rate: int, settings: Settings) -> None:
    """(C, N)."""
    block = sample_count(BLOCK, sample_rate)
    loud = np.abs(wave).max(axis=0)
    loud = np.pad(loud, (0, -len(loud) % block)).reshape(-1, block)
    quiet = float((np.sqrt(np.square(loud).mean(axis=1)) < QUIET).mean())
    if quiet > settings.silence or quiet == 1:
        raise DropError("silent", f"{quiet:.0%} of the sound is silent")


def check_picture(picture: VisualFeatures, settings: Settings) -> None:
    moving = float(np.quantile(picture.motion, 0.95))
    if not picture.cuts and moving < settings.still and np.ptp(picture.brightness) < DARKENING:
        raise DropError("static", f"no cut, and at most {moving:.4f} of motion")


def stretches(seconds: float, frame_rate: int, longest: float) -> list[tuple[float, float]]:
    """(begin, duration) of even parts of at most `longest` seconds, each a whole number of codec frames.

    What is left of the last frame is left out.
    """
    total = codec_frames(seconds, frame_rate)
    total -= seconds_of(total, frame_rate) > seconds + 1e-6
    count = -(-total // codec_frames(longest, frame_rate))
    edges = [total * number // count for number in range(count + 1)]
    return [(seconds_of(first, frame_rate), seconds_of(last - first, frame_rate)) for first, last in pairwise(edges)]
