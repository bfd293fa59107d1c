"""Sound in and out of files: a video's own sound at its true position, resampling, WAV and FLAC.

C channels, N samples.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from v2m.core.errors import UsageError
from v2m.core.timing import clock_seconds, sample_count, seconds_of
from v2m.core.types import Audio
from v2m.media import ffmpeg
from v2m.media.ffmpeg import open_media

if TYPE_CHECKING:
    import av

TRIED_RATE = 16_000  # Hz at which a melody is read to see whether it can be
SHORTEST_MELODY = 1.0  # seconds
GAP = 0.02  # seconds between where a frame should start and where it says it does that count as a gap
FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def save(audio: Audio, path: Path) -> None:
    """Writes a WAV (32-bit float) or FLAC (24 bit) by the suffix of `path`, whole or not at all.

    Raises:
        UsageError: The suffix is another one.
        OSError: The disk is full or the folder cannot be written to.
    """
    import soundfile

    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"{path.name}: sound is written as {' or '.join(FORMATS)}, not {path.suffix or 'without suffix'}"
        )
    temporary = path.with_name(f".{path.stem[:40]}.v2m-{uuid.uuid4().hex[:8]}{path.suffix}")
    subtype = "FLOAT" if form == "WAV" else "PCM_24"
    try:
        with temporary.open("xb") as file:
            number = file.fileno()  # a file object would be called back, and callbacks swallow signals and errors
            try:
                soundfile.write(number, audio.samples.T, audio.sample_rate, subtype, format=form, closefd=False)
            except soundfile.LibsndfileError:  # which does not tell why: the system does when asked again
                os.write(number, bytes(1 << 16))
                raise
            os.fsync(number)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def resample(audio: Audio, sample_rate: int) -> Audio:
    """Stereo at `sample_rate`, of the same duration to the sample; the same object where it is so already."""
    if audio.sample_rate == sample_rate and audio.channels == 2:
        return audio
    import av

    count = sample_count(seconds_of(len(audio), audio.sample_rate), sample_rate)
    out = np.zeros((2, count), np.float32)
    layout = "mono" if audio.channels == 1 else "stereo"
    sink = _Sink(out, sample_rate)
    for start in range(0, len(audio), audio.sample_rate):
        piece = np.ascontiguousarray(audio.samples[:2, start : start + audio.sample_rate], np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate = audio.sample_rate
        sink.put(frame, None)
    sink.flush()
    return Audio(out, sample_rate)


def load(path: Path, sample_rate: int, seconds: float) -> Audio:
    """The first `seconds` of a sound file, or of a video's first audio track, in stereo; less where it is shorter.

    Raises:
        UsageError: There is no such file, or no sound that can be decoded in it.
    """
    from av.error import FFmpegError

    if not path.is_file():
        raise UsageError(f"{str(path)!r}: no such sound file")
    try:
        with open_media(path, ffmpeg.SOUND) as container:
            if not container.streams.audio:
                raise UsageError(f"{str(path)!r} holds no sound")
            stream = container.streams.audio[0]
            index, zero = stream.index, clock_seconds(stream.start_time or 0, stream.time_base)
            length = seconds if stream.duration is None else clock_seconds(stream.duration, stream.time_base)
        audio, _ = read_track(path, index, zero, min(seconds, length), sample_rate, formats=ffmpeg.SOUND)
    except (FFmpegError, OSError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as sound ({error.strerror or error})") from error
    if not audio.samples.any():
        raise UsageError(f"{str(path)!r} is silent, or no sound could be decoded from it")
    return audio


def check_melody(path: Path) -> None:
    """Raises UsageError where a tune cannot be read as sound, or lasts less than a second."""
    sound = load(path, TRIED_RATE, SHORTEST_MELODY)
    if seconds_of(len(sound), sound.sample_rate) < SHORTEST_MELODY:
        raise UsageError(f"{str(path)!r}: a melody must last a second or more")


def rate_of(path: Path) -> int:
    """The rate in Hz of the first audio track of a file that `load` can read."""
    with open_media(path, ffmpeg.SOUND) as container:
        return container.streams.audio[0].rate


def read_track(
    path: Path,
    index: int,
    zero: float,
    duration: float,
    sample_rate: int,
    *,
    restarting: bool = False,
    formats: str = ffmpeg.FORMATS,
) -> tuple[Audio, bool]:
    """The audio stream number `index` of a container, in stereo, and whether all of it could be decoded.

    Sample 0 is what sounds at `zero` seconds on the container's clock; what lies before it or after `duration` is left
    out, and silence stands where the stream has nothing. `restarting` clocks are taken to go on where they jump.
    """
    import av
    from av.error import FFmpegError

    out = np.zeros((2, sample_count(duration, sample_rate)), np.float32)
    sink, whole = _Sink(out, sample_rate, restarting), True
    with open_media(path, formats) as container:
        try:
            for packet in container.demux(container.streams[index]):
                try:
                    for frame in packet.decode():
                        assert isinstance(frame, av.AudioFrame)
                        sink.put(frame, None if frame.time is None else frame.time - zero)
                except FFmpegError:
                    whole = False
                if sink.full:
                    break
        except FFmpegError:  # a truncated file ends so
            whole = False
    sink.flush()
    return Audio(out, sample_rate), whole


class _Sink:
    """Places decoded frames in `out` (2, N) by their times, resampling runs without gaps in one go."""

    def __init__(self, out: NDArray[np.float32], sample_rate: int, restarting: bool = False) -> None:
        self.out, self.rate, self.restarting = out, sample_rate, restarting
        self.shift = 0.0  # seconds by which the clock has restarted
        self.at = 0  # where the next resampled sample goes
        self.expected: float | None = None  # seconds at which the next frame begins if there is no gap
        self.form: tuple[str, str, int] | None = None
        self.resampler: av.AudioResampler | None = None

    @property
    def full(self) -> bool:
        return self.at >= self.out.shape[1]

    def put(self, frame: av.AudioFrame, time: float | None) -> None:
        import av

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        start = (self.expected or 0.0) if time is None else time + self.shift
        if self.restarting and self.expected is not None and not -1 <= start - self.expected <= 10:
            self.shift += self.expected - start
            start = self.expected
        if self.resampler is None or form != self.form or abs(start - (self.expected or 0.0)) > GAP:
            self.flush()
            self.form, self.at = form, sample_count(start, self.rate)
            # mono is spread below: swresample would make each side 3 dB quieter than the one channel was
            self.resampler = av.AudioResampler("fltp", "mono" if frame.layout.nb_channels == 1 else "stereo", self.rate)
        else:
            start = self.expected or 0.0
        self.expected = start + seconds_of(frame.samples, frame.sample_rate)
        frame.pts = None  # the resampler would fill or cut by it
        self._place(self.resampler.resample(frame))

    def flush(self) -> None:
        if self.resampler is not None:
            self._place(self.resampler.resample(None))
            self.resampler = None

    def _place(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            low, high = max(self.at, 0), min(self.at + frame.samples, self.out.shape[1])
            if high > low:
                self.out[:, low:high] = frame.to_ndarray()[:, low - self.at : high - self.at]
            self.at += frame.samples
