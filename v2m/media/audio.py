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

PROBE_RATE = 16_000  # Hz at which a melody is read to see whether it can be
MIN_MELODY_S = 1.0  # seconds
GAP_TOLERANCE_S = 0.02  # seconds between where a frame should start and where it says it does that count as a gap
SOUNDFILE_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def save(audio: Audio, path: Path) -> None:
    """Writes a WAV (32-bit float) or FLAC (24 bit) by the suffix of `path`, whole or not at all.

    Raises:
        UsageError: The suffix is another one.
        OSError: The disk is full or the folder cannot be written to.
    """
    import soundfile

    form = SOUNDFILE_FORMATS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"{path.name}: sound is written as {' or '.join(SOUNDFILE_FORMATS)}, not {path.suffix or 'without suffix'}"
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
    sink = _TrackAssembler(out, sample_rate)
    for start in range(0, len(audio), audio.sample_rate):
        piece = np.ascontiguousarray(audio.samples[:2, start : start + audio.sample_rate], np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate = audio.sample_rate
        sink.add(frame, None)
    sink.flush()
    return Audio(out, sample_rate)


def load(path: Path, sample_rate: int, max_duration: float) -> Audio:
    """The first `seconds` of a sound file, or of a video's first audio track, in stereo; less where it is shorter.

    Raises:
        UsageError: There is no such file, or no sound that can be decoded in it.
    """
    from av.error import FFmpegError

    if not path.is_file():
        raise UsageError(f"{str(path)!r}: no such sound file")
    try:
        with open_media(path, ffmpeg.AUDIO_FORMATS) as container:
            if not container.streams.audio:
                raise UsageError(f"{str(path)!r} holds no sound")
            stream = container.streams.audio[0]
            index, zero = stream.index, clock_seconds(stream.start_time or 0, stream.time_base)
            length = max_duration if stream.duration is None else clock_seconds(stream.duration, stream.time_base)
        audio, _ = read_track(path, index, zero, min(max_duration, length), sample_rate, formats=ffmpeg.AUDIO_FORMATS)
    except (FFmpegError, OSError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as sound ({error.strerror or error})") from error
    if not audio.samples.any():
        raise UsageError(f"{str(path)!r} is silent, or no sound could be decoded from it")
    return audio


def validate_melody(path: Path) -> None:
    """Raises UsageError where a tune cannot be read as sound, or lasts less than a second."""
    sound = load(path, PROBE_RATE, MIN_MELODY_S)
    if seconds_of(len(sound), sound.sample_rate) < MIN_MELODY_S:
        raise UsageError(f"{str(path)!r}: a melody must last a second or more")


def probe_sample_rate(path: Path) -> int:
    """The rate in Hz of the first audio track of a file that `load` can read."""
    with open_media(path, ffmpeg.AUDIO_FORMATS) as container:
        return container.streams.audio[0].rate


def read_track(
    path: Path,
    stream_index: int,
    start_time: float,
    duration: float,
    sample_rate: int,
    *,
    discontinuous: bool = False,
    formats: str = ffmpeg.CONTAINER_FORMATS,
) -> tuple[Audio, bool]:
    """The audio stream number `index` of a container, in stereo, and whether all of it could be decoded.

    Sample 0 is what sounds at `zero` seconds on the container's clock; what lies before it or after `duration` is left
    out, and silence stands where the stream has nothing. `restarting` clocks are taken to go on where they jump.
    """
    import av
    from av.error import FFmpegError

    out = np.zeros((2, sample_count(duration, sample_rate)), np.float32)
    sink, whole = _TrackAssembler(out, sample_rate, discontinuous), True
    with open_media(path, formats) as container:
        try:
            for packet in container.demux(container.streams[stream_index]):
                try:
                    for frame in packet.decode():
                        assert isinstance(frame, av.AudioFrame)
                        sink.add(frame, None if frame.time is None else frame.time - start_time)
                except FFmpegError:
                    whole = False
                if sink.is_full:
                    break
        except FFmpegError:  # a truncated file ends so
            whole = False
    sink.flush()
    return Audio(out, sample_rate), whole


class _TrackAssembler:
    """Places decoded frames in `out` (2, N) by their times, resampling runs without gaps in one go."""

    def __init__(self, out: NDArray[np.float32], sample_rate: int, discontinuous: bool = False) -> None:
        self.out, self.sample_rate, self.discontinuous = out, sample_rate, discontinuous
        self.clock_shift = 0.0  # seconds by which the clock has restarted
        self.position = 0  # where the next resampled sample goes
        self.next_time: float | None = None  # seconds at which the next frame begins if there is no gap
        self.frame_format: tuple[str, str, int] | None = None
        self.resampler: av.AudioResampler | None = None

    @property
    def is_full(self) -> bool:
        return self.position >= self.out.shape[1]

    def add(self, frame: av.AudioFrame, time: float | None) -> None:
        import av

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        start = (self.next_time or 0.0) if time is None else time + self.clock_shift
        if self.discontinuous and self.next_time is not None and not -1 <= start - self.next_time <= 10:
            self.clock_shift += self.next_time - start
            start = self.next_time
        if (
            self.resampler is None
            or form != self.frame_format
            or abs(start - (self.next_time or 0.0)) > GAP_TOLERANCE_S
        ):
            self.flush()
            self.frame_format, self.position = form, sample_count(start, self.sample_rate)
            # mono is spread below: swresample would make each side 3 dB quieter than the one channel was
            self.resampler = av.AudioResampler(
                "fltp", "mono" if frame.layout.nb_channels == 1 else "stereo", self.sample_rate
            )
        else:
            start = self.next_time or 0.0
        self.next_time = start + seconds_of(frame.samples, frame.sample_rate)
        frame.pts = None  # the resampler would fill or cut by it
        self._write(self.resampler.resample(frame))

    def flush(self) -> None:
        if self.resampler is not None:
            self._write(self.resampler.resample(None))
            self.resampler = None

    def _write(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            low, high = max(self.position, 0), min(self.position + frame.samples, self.out.shape[1])
            if high > low:
                self.out[:, low:high] = frame.to_ndarray()[:, low - self.position : high - self.position]
            self.position += frame.samples
