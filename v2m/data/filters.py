"""Which videos nothing can be learnt from, and why. A reason is a stable word that the manifest counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import codec_frames, sample_count, seconds_of
from v2m.core.types import VisualFeatures
from v2m.data.config import PrepareConfig

BLOCK_S = 0.1  # seconds in which sound is or is not silent
SILENCE_RMS = 1e-3  # −60 dBFS
MIN_BRIGHTNESS_RANGE = 0.02  # change of brightness that a still picture does not have


class FilteredOutError(Exception):
    """The video is left out for `reason`: too_short, too_long, no_sound, silent, lengths_differ, static, unreadable,
    failed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def check_duration(seconds: float, config: PrepareConfig) -> None:
    """Raises DropError, as all here do."""
    if seconds < config.min_duration_s:
        raise FilteredOutError("too_short", f"{seconds:.2f} s, less than {config.min_duration_s:g} s")
    if seconds > config.max_duration_s:
        raise FilteredOutError("too_long", f"{seconds:.0f} s, more than {config.max_duration_s:g} s")


def check_overlap(picture: float, sound: float, config: PrepareConfig) -> None:
    """Seconds of both, of which the shorter will be used."""
    if min(picture, sound) < config.min_overlap * max(picture, sound):
        raise FilteredOutError("lengths_differ", f"{picture:.2f} s of picture, {sound:.2f} s of sound")


def check_silence(wave: NDArray[np.float32], sample_rate: int, config: PrepareConfig) -> None:
    """(C, N)."""
    block = sample_count(BLOCK_S, sample_rate)
    loud = np.abs(wave).max(axis=0)
    loud = np.pad(loud, (0, -len(loud) % block)).reshape(-1, block)
    quiet = float((np.sqrt(np.square(loud).mean(axis=1)) < SILENCE_RMS).mean())
    if quiet > config.max_silence or quiet == 1:
        raise FilteredOutError("silent", f"{quiet:.0%} of the sound is silent")


def check_motion(picture: VisualFeatures, config: PrepareConfig) -> None:
    moving = float(np.quantile(picture.motion, 0.95))
    if not picture.cuts and moving < config.min_motion and np.ptp(picture.brightness) < MIN_BRIGHTNESS_RANGE:
        raise FilteredOutError("static", f"no cut, and at most {moving:.4f} of motion")


def split_into_segments(seconds: float, frame_rate: int, longest: float) -> list[tuple[float, float]]:
    """(begin, duration) of even parts of at most `longest` seconds, each a whole number of codec frames.

    What is left of the last frame is left out.
    """
    total = codec_frames(seconds, frame_rate)
    total -= seconds_of(total, frame_rate) > seconds + 1e-6
    count = -(-total // codec_frames(longest, frame_rate))
    edges = [total * number // count for number in range(count + 1)]
    return [(seconds_of(first, frame_rate), seconds_of(last - first, frame_rate)) for first, last in pairwise(edges)]
