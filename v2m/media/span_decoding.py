"""Decoding of H.264 in threads that each decode whole spans of groups of pictures.

Nothing after an IDR picture refers to what was before it (ITU-T H.264, 7.4.1.2.4), so that a span that begins with one
decodes to the same pictures by itself. FFmpeg's frame threads instead wait for each other's pictures, and stand still
while their caller scales one. Where a span might depend on an earlier one, or come out otherwise than in sequence,
UnsafeSpanError is raised before the first frame that is in doubt.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar

from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v2m.core.timing import ticks_to_seconds
from v2m.media.decoding import demux_packets, video_packets

Picture = TypeVar("Picture")

NUM_DECODERS = min(8, os.cpu_count() or 1)
MIN_SPAN_PACKETS = 30  # shorter groups are joined: the decoder is emptied after each span
MAX_SPAN_PACKETS = 600  # so many small pictures wait in memory for those of the span before
MIN_BALANCE = 0.75  # share of the decoders that have work, on average; with less, frame threads are faster
MAX_PIXELS = 1 << 23  # of a frame (4K): each decoder holds up to 17
# The decoder reads 4:4:4 by the name of the encoder, which only the first packet may hold.
PIXEL_FORMATS = {"yuv420p", "yuvj420p"}
LENGTH_BYTES = 4  # before each unit, as all common encoders write
SLICE_UNITS, IDR_UNIT = {1, 2, 5}, 5  # types of units (ITU-T H.264, table 7-1)
PARAMETER_SET_UNITS = {7, 8, 13, 15}


class UnsafeSpanError(Exception):
    """The rest of a stream has to be decoded in sequence."""


def is_balanced(key_packets: Sequence[int], num_packets: int, num_decoders: int = NUM_DECODERS) -> bool:
    """Return whether spans that begin at some of the `key_packets` (numbers) keep the decoders busy."""
    if num_decoders < 2:
        return False
    starts: list[int] = []
    for number in key_packets:
        if not starts or number - starts[-1] >= MIN_SPAN_PACKETS:
            starts.append(number)
    lengths = [end - start for start, end in itertools.pairwise([*starts, num_packets])]
    loads = [0] * num_decoders
    for length in lengths:
        heapreplace(loads, loads[0] + length)
    busy = num_packets / (num_decoders * max(1, *loads))
    return max(lengths, default=0) <= MAX_SPAN_PACKETS and busy >= MIN_BALANCE


def decode_spans(
    open_file: Callable[[], InputContainer],
    stream_index: int,
    make_convert: Callable[[], Callable[[VideoFrame], Picture]],
) -> Generator[tuple[float, Picture], None, None]:
    """Yield the time and the picture of every frame in order, as one decoder for all would.

    Times are seconds on the stream's clock. Each decoder takes its own function from `make_convert`, for all frames in
    its thread. Raises UnsafeSpanError where the frames from here on have to be decoded in sequence.
    """
    claims = _Claims[Picture]()
    decoders = [_SpanDecoder(claims, open_file, stream_index, make_convert()) for _ in range(NUM_DECODERS)]
    try:
        while not isinstance(claim := claims.queue.get(), Exception):
            while (result := claim.results.get()) is not None:
                if isinstance(result, Exception):
                    raise UnsafeSpanError(str(result)) from result
                yield result
        if not isinstance(claim, EOFError):
            raise UnsafeSpanError(str(claim)) from claim
    finally:
        for decoder in decoders:
            decoder.stop()


class _Claims(Generic[Picture]):
    """Claims of spans by decoders: the first to come to one decodes it.

    `queue` holds the decoders in the order of their spans, and exceptions of those that ended: EOFError at the end of
    the file, else the reason to go on in sequence.
    """

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[_SpanDecoder[Picture] | Exception] = queue.SimpleQueue()
        self._num_claimed, self._lock = 0, threading.Lock()

    def claim(self, number: int, decoder: _SpanDecoder[Picture]) -> bool:
        """Give a span to `decoder` unless another has it; each comes to all spans in their order."""
        with self._lock:
            if number < self._num_claimed:
                return False
            self._num_claimed += 1
            self.queue.put(decoder)
            return True


class _SpanDecoder(Generic[Picture]):
    """A thread that decodes the spans that it claims.

    `results` holds pictures with their times, None after each span, and the exception of one that failed.
    """

    def __init__(
        self,
        claims: _Claims[Picture],
        open_file: Callable[[], InputContainer],
        stream_index: int,
        convert: Callable[[VideoFrame], Picture],
    ) -> None:
        self.results: queue.Queue[tuple[float, Picture] | Exception | None] = queue.Queue(MAX_SPAN_PACKETS)
        self._claims, self._open_file, self._stream_index = claims, open_file, stream_index
        self._convert, self._stopped = convert, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = True
        while self._thread.is_alive():
            with suppress(queue.Empty):  # the thread may wait for room
                self.results.get(timeout=0.01)

    def _run(self) -> None:
        try:
            with self._open_file() as container:
                self._decode(container)
        except Exception as error:  # in sequence the same one comes again, or none
            self._claims.queue.put(error)
            self.results.put(error)
        else:
            self._claims.queue.put(EOFError())

    def _decode(self, container: InputContainer) -> None:
        stream = container.streams[self._stream_index]
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        header = _length_prefixed_header(context)
        context.thread_count = 1
        context.options = {"max_pixels": container.options["max_pixels"]}
        packets = number_spans(video_packets(demux_packets(container, stream), stream), header)
        for number, span in itertools.groupby(packets, lambda item: item[0]):
            if not self._claims.claim(number, self):
                continue
            for frame in decode_span(context, (packet for _, packet in span)):
                if self._stopped:
                    return
                assert frame.pts is not None
                self.results.put((ticks_to_seconds(frame.pts, stream.time_base), self._convert(frame)))
            self.results.put(None)


def _length_prefixed_header(context: VideoCodecContext) -> bytes:
    """Return the parameter sets of H.264 with lengths, as in MP4; UnsafeSpanError for others."""
    header = context.extradata or b""
    if context.codec.canonical_name != "h264" or len(header) < 5 or header[0] != 1:
        raise UnsafeSpanError("is not H.264 with its parameter sets in the header")
    if (header[4] & 3) + 1 != LENGTH_BYTES:
        raise UnsafeSpanError("has short lengths")
    if context.pix_fmt not in PIXEL_FORMATS or context.width * context.height > MAX_PIXELS:
        raise UnsafeSpanError(f"has {context.width} × {context.height} pixels in the format {context.pix_fmt}")
    return header


def number_spans(packets: Iterable[Packet], header: bytes) -> Iterator[tuple[int, Packet]]:
    """Yield each packet with the number of its span.

    Raises UnsafeSpanError for parameter sets that are not in `header`.
    """
    number, length = -1, MIN_SPAN_PACKETS
    for packet in packets:
        if packet.has_sidedata("new_extradata"):
            raise UnsafeSpanError("changes its parameter sets")
        if _begins_with_idr(packet, header) and length >= MIN_SPAN_PACKETS:
            number, length = number + 1, 0
        if number < 0:
            raise UnsafeSpanError("does not begin with an IDR picture")
        length += 1
        yield number, packet


def _begins_with_idr(packet: Packet, header: bytes) -> bool:
    """Return whether a packet begins with an IDR picture. Raises UnsafeSpanError as `number_spans`."""
    data, position, first_slice = memoryview(packet), 0, None
    while position + LENGTH_BYTES < len(data):
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "big")
        kind = data[start] & 31
        if kind in PARAMETER_SET_UNITS and bytes(data[start:position]).rstrip(b"\0") not in header:
            raise UnsafeSpanError("changes its parameter sets")
        if first_slice is None and kind in SLICE_UNITS:
            first_slice = kind
    return first_slice == IDR_UNIT and packet.is_keyframe


def decode_span(context: VideoCodecContext, packets: Iterable[Packet]) -> Iterator[VideoFrame]:
    """Yield the frames of a span, and empty the decoder.

    Raises UnsafeSpanError unless the frames are those of all packets, in the order of their time stamps, without error.
    """
    waiting: list[int] = []
    for packet in itertools.chain(packets, [None]):
        if packet is not None:
            if packet.pts is None:
                raise UnsafeSpanError("lacks time stamps")
            heappush(waiting, packet.pts)
        for frame in context.decode(packet):
            if frame.is_corrupt or not waiting or frame.pts != heappop(waiting):
                raise UnsafeSpanError("has errors, or frames out of order")
            yield frame
    if waiting:
        raise UnsafeSpanError("lacks frames")
    context.flush_buffers()
