"""Reading of scaled frames in the decoder process: all, or those at given times.

F frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from v2m.core.errors import InvalidInputError
from v2m.core.timing import ticks_to_seconds
from v2m.core.types import Pixels
from v2m.media.decoding import CHUNK_BYTES, DecodeStats, Orientation, decode_frames, open_video
from v2m.media.span_decoding import UnsafeSpanError, decode_spans

TimedFrame = tuple[float, VideoFrame]
TimedImage = tuple[float, Pixels]
OpenFile = Callable[[], InputContainer]
MakeConvert = Callable[[], "_FrameConverter"]
EARLIEST_S = -1e-4  # clocks are rounded


def read_frames(
    path: str,
    *,
    stream: int,
    max_pixels: int,
    start: float,
    size: Sequence[int],
    orientation: Sequence[bool],
    times: Sequence[float] | None,
    order: Sequence[float] | None,
    separable: bool,
    stats: DecodeStats,
) -> Iterator[tuple[list[float], Pixels]]:
    """Yield times (F,) and frames (F, H, W, 3) in chunks: the frames shown at the rising `times`, or all.

    `size` is W, H. Seconds count from `start` on the stream's clock; where that clock is wrong, `order` gives the time
    of each frame in turn. All frames of a `separable` file, which has neither of them wrong, are read by
    `span_decoding`. Raises InvalidInputError `undecodable` at the end where too few packets decoded.
    """
    make_convert = partial(_FrameConverter, size, Orientation(*orientation))
    open_file = partial(open_video, path, max_pixels)
    chunk_frames = max(1, CHUNK_BYTES // (3 * size[0] * size[1]))
    seconds: list[float] = []
    images: list[Pixels] = []
    num_frames = 0
    if separable and times is None:
        timed_images = _read_spans(open_file, stream, make_convert, start, stats)
    else:
        timed_images = _read_sequence(open_file, stream, make_convert, start, times, order, stats)
    for time, image in timed_images:
        num_frames += 1
        seconds.append(time)
        images.append(image)
        if len(images) >= chunk_frames:
            yield seconds, np.stack(images)
            seconds, images = [], []
    if images:
        yield seconds, np.stack(images)
    if stats.complete and not (num_frames and stats.is_decodable):
        raise InvalidInputError("undecodable", "can hardly be decoded; is it encrypted or damaged?")


def _read_spans(
    open_file: OpenFile, stream: int, make_convert: MakeConvert, start: float, stats: DecodeStats
) -> Iterator[TimedImage]:
    """Yield what `_read_sequence` does, read in spans as far as that is safe."""
    latest, num_frames = EARLIEST_S, 0
    try:
        for clock_time, image in decode_spans(open_file, stream, make_convert):
            num_frames += 1
            if clock_time - start > latest:
                latest = clock_time - start
                yield latest, image
    except UnsafeSpanError:
        frames = _read_sequence(open_file, stream, make_convert, start, None, None, stats, after=latest)
        yield from frames
    else:  # each packet gave its frame
        stats.num_packets = stats.num_frames = num_frames
        stats.complete = True


def _read_sequence(  # noqa: PLR0917 - where from, how, which
    open_file: OpenFile,
    stream: int,
    make_convert: MakeConvert,
    start: float,
    times: Sequence[float] | None,
    order: Sequence[float] | None,
    stats: DecodeStats,
    after: float | None = None,
) -> Iterator[TimedImage]:
    """Yield times and images of the frames shown at `times`, or all later than `after`."""
    convert = make_convert()
    with open_file() as container:
        video = container.streams[stream]
        assert isinstance(video, VideoStream)
        frames = _with_times(decode_frames(container, video, stats), video.time_base, start, order)
        for time, frame in frames if times is None else _frames_at(frames, times):
            if after is None or time > after:
                yield time, convert(frame)


def _with_times(
    frames: Iterable[VideoFrame], time_base: Fraction | None, start: float, order: Sequence[float] | None
) -> Iterator[TimedFrame]:
    """Yield frames with rising times from 0; frames before 0 or out of order are never shown."""
    if order is not None:
        for frame, time in zip(frames, order, strict=False):
            yield time, frame
        return
    latest = EARLIEST_S
    for frame in frames:
        time = None if frame.pts is None else ticks_to_seconds(frame.pts, time_base) - start
        if time is not None and time > latest:
            yield time, frame
            latest = time


def _frames_at(frames: Iterable[TimedFrame], times: Sequence[float]) -> Iterator[TimedFrame]:
    """Yield for each time the last frame not after it, or else the first, as `timing.frame_index_at` does."""
    instants = iter(times)
    instant = next(instants, None)
    shown = None
    for time, frame in frames:
        while shown is not None and instant is not None and instant + 1e-6 < time:
            yield instant, shown
            instant = next(instants, None)
        if instant is None:
            return
        shown = frame
    while shown is not None and instant is not None:
        yield instant, shown
        instant = next(instants, None)


class _FrameConverter:
    """Converter of frames to upright RGB arrays of one size; a repeated frame is converted once."""

    def __init__(self, size: Sequence[int], orientation: Orientation) -> None:
        self._size = (size[1], size[0]) if orientation.transpose else (size[0], size[1])
        self._orientation = orientation
        self._reformatter = VideoReformatter()
        self._last: tuple[VideoFrame, Pixels] | None = None

    def __call__(self, frame: VideoFrame) -> Pixels:
        if self._last is None or self._last[0] is not frame:
            width, height = self._size
            area = Interpolation.AREA
            scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=area, threads=1)
            self._last = frame, self._orientation.apply(scaled.to_ndarray())  # type: ignore[arg-type]
        return self._last[1]
