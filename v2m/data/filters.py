"""Filters that leave out videos without use for training, and the split of videos into segments.

The reason of a filter is a stable word that the manifest counts.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import codec_frames, sample_count, seconds_of
from v2m.core.types import VisualFeatures
from v2m.data.config import PrepareConfig

BLOCK_S = 0.1  # duration of a block of audio that is silent or not
SILENCE_RMS = 1e-3  # −60 dBFS
MIN_BRIGHTNESS_RANGE = 0.02  # that a still image does not reach


class FilteredOutError(Exception):
    """A video that is left out. `reason`: too_short, too_long, no_sound, silent, lengths_differ, static, unreadable or
    failed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def check_duration(seconds: float, config: PrepareConfig) -> None:
    """Raise FilteredOutError, as all checks here do."""
    if seconds < config.min_duration_s:
        raise FilteredOutError("too_short", f"{seconds:.2f} s, less than {config.min_duration_s:g} s")
    if seconds > config.max_duration_s:
        raise FilteredOutError("too_long", f"{seconds:.0f} s, more than {config.max_duration_s:g} s")


def check_overlap(video_seconds: float, audio_seconds: float, config: PrepareConfig) -> None:
    """Compare the durations of video and audio, the shorter of which is used."""
    if min(video_seconds, audio_seconds) < config.min_overlap * max(video_seconds, audio_seconds):
        raise FilteredOutError("lengths_differ", f"{video_seconds:.2f} s of video, {audio_seconds:.2f} s of audio")


def check_silence(wave: NDArray[np.float32], sample_rate: int, config: PrepareConfig) -> None:
    """Measure the share of silent blocks of audio (C, N)."""
    block_size = sample_count(BLOCK_S, sample_rate)
    peaks = np.abs(wave).max(axis=0)
    blocks = np.pad(peaks, (0, -len(peaks) % block_size)).reshape(-1, block_size)
    silence = float((np.sqrt(np.square(blocks).mean(axis=1)) < SILENCE_RMS).mean())
    if silence > config.max_silence or silence == 1:
        raise FilteredOutError("silent", f"{silence:.0%} of the audio is silent")


def check_motion(features: VisualFeatures, config: PrepareConfig) -> None:
    """Look for a cut, motion, or a change of brightness."""
    motion = float(np.quantile(features.motion, 0.95))
    if not features.cuts and motion < config.min_motion and np.ptp(features.brightness) < MIN_BRIGHTNESS_RANGE:
        raise FilteredOutError("static", f"no cut, and at most {motion:.4f} of motion")


def split_into_segments(seconds: float, frame_rate: int, max_segment_s: float) -> list[tuple[float, float]]:
    """Return (start, duration) of even segments of at most `max_segment_s`, each a whole number of codec frames.

    An incomplete last frame is left out.
    """
    total = codec_frames(seconds, frame_rate)
    total -= seconds_of(total, frame_rate) > seconds + 1e-6
    count = -(-total // codec_frames(max_segment_s, frame_rate))
    edges = [total * number // count for number in range(count + 1)]
    return [(seconds_of(first, frame_rate), seconds_of(last - first, frame_rate)) for first, last in pairwise(edges)]
