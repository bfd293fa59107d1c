"""Times of the frames that a vision encoder reads, of a window and of the whole video."""

from __future__ import annotations

import math

import numpy as np
import torch

from v2m.core.timing import segment_count, segment_times
from v2m.core.types import Floats, Video


def window_frame_times(video: Video, aspect: str, start: float, seconds: float, rate: float) -> Floats:
    """Times of about `rate` frames per second of `seconds` from `start`.

    They are evenly spaced, but for the aspect "vidmuse", which takes the frames that VidMuse was trained on: every
    ceil(fps / rate)th frame; the last one stands for what lies beyond the video.
    """
    count = segment_count(seconds, rate)
    if aspect != "vidmuse":
        return start + segment_times(seconds, count)
    numbers = int(start * video.fps + 1e-6) + math.ceil(video.fps / rate - 1e-3) * np.arange(count)
    inside = numbers[numbers < len(video.timestamps)]
    return video.timestamps[np.minimum(numbers, inside[-1] if len(inside) else len(video.timestamps) - 1)]


def long_term_frame_times(video: Video, aspect: str, count: int) -> Floats:
    """Times of `count` frames of the whole video: evenly, or from its first to its last as VidMuse does."""
    if aspect != "vidmuse":
        return segment_times(video.duration, count)
    return video.timestamps[torch.linspace(0, len(video.timestamps) - 1, count).long().numpy()]
