"""Audio files and tracks: reading at the true position, resampling, writing; C channels, N samples."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from v2m.core import mapped_array
from v2m.core.atomic import publish, temporary_sibling
from v2m.core.errors import UsageError
from v2m.core.timing import samples_to_seconds, seconds_to_samples, ticks_to_seconds
from v2m.core.types import Audio, Floats, Video, select_audio
from v2m.media.ffmpeg import AUDIO_FORMATS, VIDEO_FORMATS, has_discontinuous_clock, open_media

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

PROBE_RATE = 16_000  # Hz at which a melody is read to validate it
MIN_MELODY_S = 1.0
GAP_TOLERANCE_S = 0.02  # between the end of a frame and the time stamp of the next; more is a gap
DRIFT_TOLERANCE_S = 0.002  # by which a clock may differ from the number of samples before it is followed
DRIFT_WINDOW_S = 2.0  # over which time stamps are averaged: Matroska rounds each to 1 ms
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")  # of a video's music, in this order
MICROSECOND = Fraction(1, 1_000_000)  # of a file's duration, and of a clock that is followed
SOUNDFILE_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


class SilentAudioError(UsageError):
    """An audio file without any sound."""


def save(audio: Audio, path: Path) -> None:
    """Write a WAV (32-bit float) or FLAC (24 bit) by the suffix of `path`, whole or not at all.

    Raises UsageError for another suffix, OSError where the disk is full or the folder cannot be written to.
    """
    import soundfile

    file_format = SOUNDFILE_FORMATS.get(path.suffix.lower())
    if file_format is None:
        formats = " or ".join(SOUNDFILE_FORMATS)
        raise UsageError(f"{path.name}: sound is written as {formats}, not {path.suffix or 'without suffix'}")
    subtype = "FLOAT" if file_format == "WAV" else "PCM_24"
    with temporary_sibling(path) as temporary:
        with temporary.open("wb") as file:
            # libsndfile would call a file object back, and its callbacks swallow signals and errors.
            layout = (audio.sample_rate, audio.channels, subtype)
            try:
                with soundfile.SoundFile(file.fileno(), "w", *layout, format=file_format, closefd=False) as sink:
                    for part in mapped_array.chunks(len(audio)):
                        sink.write(audio.samples[:, part].T)
            except soundfile.LibsndfileError:  # without a reason, which the system gives when asked again
                os.write(file.fileno(), bytes(1 << 16))
                raise
        if file_format == "WAV":
            _clear_write_time(temporary)
        publish(temporary, path)


def _clear_write_time(path: Path) -> None:
    """Set the time that libsndfile writes into a WAV file (PEAK) to 0: the same audio, the same bytes."""
    with path.open("r+b") as file:
        file.seek(12)  # behind RIFF, the size and WAVE
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"PEAK":
                file.seek(4, os.SEEK_CUR)  # its version
                file.write(bytes(4))
                return
            file.seek(size + size % 2, os.SEEK_CUR)


def resample(audio: Audio, sample_rate: int) -> Audio:
    """Return stereo at `sample_rate` of the same duration; `audio` itself where it is that already."""
    if audio.sample_rate == sample_rate and audio.channels == 2:
        return audio
    import av

    count = seconds_to_samples(samples_to_seconds(len(audio), audio.sample_rate), sample_rate)
    out = mapped_array.zeros((2, count))
    layout = "mono" if audio.channels == 1 else "stereo"
    assembler = _TrackAssembler(out, sample_rate)
    for start in range(0, len(audio), audio.sample_rate):
        chunk = np.ascontiguousarray(audio.samples[:2, start : start + audio.sample_rate], np.float32)
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=layout)
        frame.sample_rate = audio.sample_rate
        assembler.add(frame, None)
    assembler.flush()
    return Audio(out, sample_rate)


def load(path: Path, sample_rate: int, max_duration: float) -> Audio:
    """Read an audio file, or a video's default audio track, in stereo, up to `max_duration` seconds.

    Raises UsageError where there is no such file or no audio to decode, SilentAudioError where all samples are 0.
    """
    from av.error import FFmpegError

    if not path.is_file():
        raise UsageError(f"{str(path)!r}: no such sound file")
    formats = (*VIDEO_FORMATS, *AUDIO_FORMATS)
    try:
        with open_media(path, formats) as container:
            index = _default_index(container)
            if index is None:
                raise UsageError(f"{str(path)!r} holds no sound that can be decoded")
            stream = container.streams[index]
            start_time = ticks_to_seconds(stream.start_time or 0, stream.time_base)
            duration = max_duration
            if stream.duration is not None:
                duration = min(max_duration, ticks_to_seconds(stream.duration, stream.time_base))
            elif container.duration is not None:  # Matroska states only the file's
                end = ticks_to_seconds(container.duration + (container.start_time or 0), MICROSECOND)
                duration = min(max_duration, end - start_time) if end > start_time else max_duration
        audio, _ = read_track(path, index, start_time, duration, sample_rate, formats=formats)
    except (FFmpegError, OSError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as sound ({error.strerror or error})") from error
    if not audio.samples.any():
        raise SilentAudioError(f"{str(path)!r} is silent, or no sound could be decoded from it")
    return audio


def validate_melody(path: Path) -> None:
    """Raise UsageError where a melody or reference cannot be read as audio, or lasts less than a second."""
    audio = load(path, PROBE_RATE, MIN_MELODY_S)
    if samples_to_seconds(len(audio), audio.sample_rate) < MIN_MELODY_S:
        raise UsageError(f"{str(path)!r}: a melody or reference must last a second or more")


def probe_sample_rate(path: Path) -> int:
    """Return the rate in Hz of the audio track of a file that `load` can read."""
    with open_media(path, (*VIDEO_FORMATS, *AUDIO_FORMATS)) as container:
        index = _default_index(container)
        assert index is not None, "the file has been loaded"
        return next(stream.rate for stream in container.streams.audio if stream.index == index)


def _default_index(container: InputContainer) -> int | None:
    from v2m.media.probe import list_streams

    stream = select_audio(tuple(list_streams(container)))
    return None if stream is None else stream.index


def original_audio(
    video: Video, sample_rate: int, duration: float | None = None, *, track: int | None = None
) -> tuple[Audio, bool]:
    """Read a video's audio track in stereo, and whether all of it could be decoded.

    Sample 0 is at the first shown picture; `duration` is the video's by default. `track` is as of `Video.audio_track`,
    which must find one.
    """
    stream, duration = video.audio_track(track), video.duration if duration is None else duration
    assert stream is not None, "the video has no audio that can be decoded"
    index = stream.index
    discontinuous = has_discontinuous_clock(video.container)
    return read_track(video.path, index, video.offset, duration, sample_rate, discontinuous=discontinuous)


def read_track(
    path: Path,
    stream_index: int,
    start_time: float,
    duration: float,
    sample_rate: int,
    *,
    discontinuous: bool = False,
    formats: Sequence[str] = VIDEO_FORMATS,
) -> tuple[Audio, bool]:
    """Read an audio stream of a container in stereo, and whether all of it could be decoded.

    Sample 0 is at `start_time` seconds on the container's clock; audio before it or after `duration` is left out, and
    gaps of the stream are silence. Where the clock is `discontinuous`, time goes on across its jumps.
    """
    out = mapped_array.zeros((2, seconds_to_samples(duration, sample_rate)))
    assembler = _TrackAssembler(out, sample_rate, discontinuous)
    complete = _decode_track(path, stream_index, start_time, formats, assembler)
    times = _drifting_clock(np.array(assembler.frame_times), np.array(assembler.frame_durations))
    if times is not None:
        out = mapped_array.zeros(out.shape)
        _decode_track(path, stream_index, start_time, formats, _TrackAssembler(out, sample_rate, clock=times))
    return Audio(out, sample_rate), complete


def _decode_track(
    path: Path, stream_index: int, start_time: float, formats: Sequence[str], assembler: _TrackAssembler
) -> bool:
    """Decode a stream into `assembler`; return whether all of it could be decoded."""
    import av
    from av.error import FFmpegError

    complete = True
    with open_media(path, formats) as container:
        try:
            for packet in container.demux(container.streams[stream_index]):
                try:
                    for frame in packet.decode():
                        assert isinstance(frame, av.AudioFrame)
                        assembler.add(frame, None if frame.time is None else frame.time - start_time)
                except FFmpegError:
                    complete = False
                if assembler.is_full:
                    break
        except FFmpegError:  # a truncated file ends with an error
            complete = False
    assembler.flush()
    return complete


def _drifting_clock(times: Floats, durations: Floats) -> Floats | None:
    """Return the frames' times without their rounding; None where the samples keep time with them.

    times: (F,) starts by the container's clock; durations: (F,) by the number of samples; both in seconds.
    """
    smooth, drifts = times.copy(), False
    gaps = np.flatnonzero(np.abs(np.diff(times) - durations[:-1]) > GAP_TOLERANCE_S) + 1
    for run in np.split(np.arange(len(times)), gaps):
        if len(run) < 2:
            continue
        nominal = np.cumsum(durations[run]) - durations[run]
        errors = times[run] - times[run[0]] - nominal
        windows = np.array_split(np.arange(len(run)), max(2, int(nominal[-1] / DRIFT_WINDOW_S)))
        middles, means = (np.array([values[window].mean() for window in windows]) for values in (nominal, errors))
        slopes = np.diff(means) / np.diff(middles)
        drift = np.interp(nominal, middles, means)
        drift += np.minimum(nominal - middles[0], 0) * slopes[0] + np.maximum(nominal - middles[-1], 0) * slopes[-1]
        smooth[run] = times[run[0]] + nominal + drift
        drifts |= bool(np.abs(drift - drift[0]).max() > DRIFT_TOLERANCE_S)
    return smooth if drifts else None


class _ClockResampler:
    """An `av.AudioResampler` that stretches by at most 2 % so that samples meet the frames' times."""

    def __init__(self, frame: av.AudioFrame, layout: str, sample_rate: int) -> None:
        from av.filter import Graph

        self._graph = Graph()
        source = self._graph.add_abuffer(
            format=frame.format.name, layout=frame.layout.name, sample_rate=frame.sample_rate, time_base=MICROSECOND
        )
        chain = (
            source,
            self._graph.add("aresample", f"{sample_rate}:async={sample_rate // 50}:flags=res"),
            self._graph.add("aformat", f"sample_fmts=fltp:channel_layouts={layout}"),
            self._graph.add("abuffersink"),
        )
        for upper, lower in pairwise(chain):
            upper.link_to(lower)
        self._graph.configure()

    def resample(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        from av.error import BlockingIOError, EOFError

        self._graph.push(frame)
        frames: list[av.AudioFrame] = []
        with suppress(BlockingIOError, EOFError):
            while True:
                frames.append(cast("av.AudioFrame", self._graph.pull()))
        return frames


class _TrackAssembler:
    """Writes decoded frames into `out` (2, N) at their times; a run without gaps is resampled in one go.

    `clock` holds the start of each frame where the time stamps drift against the samples (`_drifting_clock`).
    """

    def __init__(
        self, out: NDArray[np.float32], sample_rate: int, discontinuous: bool = False, clock: Floats | None = None
    ) -> None:
        self.out, self.sample_rate, self.discontinuous, self.clock = out, sample_rate, discontinuous, clock
        self.frame_times: list[float] = []
        self.frame_durations: list[float] = []
        self.clock_shift = 0.0  # seconds by which the clock has jumped
        self.position = 0  # of the next resampled sample
        self.next_time: float | None = None  # seconds at which the next frame starts if there is no gap
        self.frame_format: tuple[str, str, int] | None = None
        self.resampler: av.AudioResampler | _ClockResampler | None = None

    @property
    def is_full(self) -> bool:
        return self.position >= self.out.shape[1]

    def add(self, frame: av.AudioFrame, time: float | None) -> None:
        import av

        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        start = (self.next_time or 0.0) if time is None else time + self.clock_shift
        if self.discontinuous and self.next_time is not None and not -1 <= start - self.next_time <= 10:
            self.clock_shift += self.next_time - start
            start = self.next_time
        if self.clock is not None:
            index = len(self.frame_times)
            start = float(self.clock[index]) if index < len(self.clock) else self.next_time or 0.0
        duration = samples_to_seconds(frame.samples, frame.sample_rate)
        self.frame_times.append(start)
        self.frame_durations.append(duration)
        gap = abs(start - (self.next_time or 0.0)) > GAP_TOLERANCE_S
        if self.resampler is None or frame_format != self.frame_format or gap:
            self.flush()
            self.frame_format, self.position = frame_format, seconds_to_samples(start, self.sample_rate)
            # Mono is copied to both sides in _write: swresample would make each 3 dB quieter than the one channel.
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            if self.clock is None:
                self.resampler = av.AudioResampler("fltp", layout, self.sample_rate)
            else:
                self.resampler = _ClockResampler(frame, layout, self.sample_rate)
        elif self.clock is None:
            start = self.next_time or 0.0
        self.next_time = start + duration
        frame.pts = None  # by which the resampler would pad or cut
        if self.clock is not None:
            frame.pts, frame.time_base = round(start / MICROSECOND), MICROSECOND
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
            if self.position % mapped_array.CHUNK < frame.samples:
                mapped_array.release_pages()
