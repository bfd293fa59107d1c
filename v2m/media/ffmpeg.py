"""The ffmpeg program and PyAV: running the one, and opening media so that no other file is opened."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from v2m.core.errors import DependencyError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

# FFmpeg's demuxers; one of a demuxer's names stands for all of them. A playlist renamed .mp4 would read other files in
# spite of the protocol list; the format list stops it.
VIDEO_FORMATS = ("mov", "matroska", "avi", "asf", "flv", "mpegts", "mpeg", "ogg", "gif", "apng", "mxf")
AUDIO_FORMATS = ("wav", "w64", "mp3", "flac", "aac", "aiff", "caf", "au")
VIDEO_ONLY_FORMATS = {"gif", "apng", "webp"}  # cannot hold audio, so that their pictures are re-encoded
_DISCONTINUOUS_FORMATS = {"mpegts", "mpeg"}  # whose clock may jump in the middle, as where two recordings were joined
CRASH_SIGNALS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGPIPE"}  # by itself
DISK_ERRORS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}


class FFmpegError(RuntimeError):
    """An error of the ffmpeg program; the message is its first line of stderr."""


def file_url(path: Path) -> str:
    """Return `path` as a URL that ffmpeg and PyAV take whatever characters it holds."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100 - links stay as they are


def open_media(
    path: Path, formats: Sequence[str] = VIDEO_FORMATS, *, max_pixels: int | None = None, timeout: float | None = None
) -> InputContainer:
    """Open a media file for reading, and no other file: neither protocols nor playlists are followed.

    Bytes of metadata that are not UTF-8 become U+FFFD: metadata is copied to outputs, where a loss must show. Raises
    av.error.FFmpegError where it is no media file, or of none of `formats`.
    """
    import av

    options = _safe_options(formats)
    if max_pixels is not None:
        options["max_pixels"] = str(max_pixels)
    return av.open(file_url(path), options=options, metadata_errors="replace", timeout=timeout)


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams without covers and the still items of HEIF and AVIF files."""
    from av.stream import Disposition

    streams = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return [stream for stream in streams if not is_still_item(stream)]


def is_still_item(stream: Stream) -> bool:
    """Return whether a video stream is an item of a HEIF or AVIF file, which has no time, and no track."""
    is_mov = "mov" in stream.container.format.name.split(",")
    return is_mov and (stream.frames, stream.duration, stream.time_base) == (1, None, 1)


def has_discontinuous_clock(container: str) -> bool:
    """Return whether a container, by FFmpeg's name for it, may restart its clock in the middle."""
    return not _DISCONTINUOUS_FORMATS.isdisjoint(container.split(","))


def input_arguments(path: Path) -> list[str]:
    """Return ffmpeg's arguments for reading a video file as `open_media` does."""
    options = [word for name, value in _safe_options(VIDEO_FORMATS).items() for word in (f"-{name}", value)]
    return [*options, "-i", file_url(path)]


def _safe_options(formats: Sequence[str]) -> dict[str, str]:
    return {"protocol_whitelist": "file", "format_whitelist": ",".join(formats)}


def find_executable() -> str:
    """Return ffmpeg's path: `V2M_FFMPEG`, else imageio-ffmpeg's, else on PATH. Raise DependencyError."""
    configured = os.environ.get("V2M_FFMPEG")
    if configured:
        program = shutil.which(configured)
        if program is None:
            problem = f"V2M_FFMPEG is {configured!r}, which is not a program"
            raise DependencyError(f"{problem}: unset it or give ffmpeg's path")
        return program
    with contextlib.suppress(ImportError):
        import imageio_ffmpeg

        with contextlib.suppress(RuntimeError):  # an unusual platform: the wheel carries no binary
            return imageio_ffmpeg.get_ffmpeg_exe()
    program = shutil.which("ffmpeg")
    if program is None:
        raise DependencyError("ffmpeg was not found: install imageio-ffmpeg, or set V2M_FFMPEG to its path")
    return program


def ffmpeg_version() -> str:
    """Return ffmpeg's version, such as "7.1"."""
    return _query_version(find_executable())


@functools.cache
def _query_version(program: str) -> str:
    try:
        output = subprocess.run([program, "-version"], capture_output=True, timeout=20, check=True, text=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DependencyError(f"{program} does not run ({error}): set V2M_FFMPEG to a working ffmpeg") from error
    words = output.split()
    if words[:2] != ["ffmpeg", "version"]:
        raise DependencyError(f"{program} is not ffmpeg: set V2M_FFMPEG to a working one, or unset it")
    return words[2]


def describe_media(path: Path) -> str:
    """Return ffmpeg's description of a video file, "" where it has none.

    It names side data that PyAV does not.
    """
    command = [find_executable(), "-hide_banner", "-nostdin", *input_arguments(path)]
    with contextlib.suppress(subprocess.TimeoutExpired):  # ffmpeg ends with an error, as there is no output
        done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=_environment())
        return done.stderr.decode(errors="replace")
    return ""


def _environment() -> dict[str, str]:
    # A static ffmpeg 7 (imageio-ffmpeg's) crashes on MPEG-TS where it finds glibc's cache of converters of text.
    return {"GCONV_PATH": "", **os.environ}


def run_ffmpeg(arguments: list[str], input_chunks: Iterable[bytes], timeout: float) -> None:
    """Run ffmpeg with `input_chunks` as its standard input; no process is left behind, whatever happens.

    Raises FFmpegError where it fails or takes more than `timeout` seconds, OSError for a full disk, a used-up quota, a
    limit on the size of files or a read-only file system, MemoryError where the system killed it, DependencyError where
    another signal stopped it.
    """
    command = [find_executable(), "-hide_banner", "-nostdin", "-y", "-v", "error", *arguments]
    env, pipe, null = _environment(), subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=pipe, stdout=null, stderr=pipe, start_new_session=True, env=env)
    assert process.stdin is not None
    assert process.stderr is not None
    stderr: deque[bytes] = deque(maxlen=50)
    reader = threading.Thread(target=stderr.extend, args=(process.stderr,), daemon=True)
    timed_out = threading.Event()
    timer = threading.Timer(timeout, lambda: (timed_out.set(), _kill(process)))
    reader.start()
    timer.start()
    try:
        _feed_stdin(process.stdin, input_chunks)
        process.wait()
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
        reader.join(timeout=5)
        process.stderr.close()
    if timed_out.is_set():
        raise FFmpegError(f"ffmpeg did not finish within {timeout:.0f} s and was stopped")
    if process.returncode != 0:
        _raise_failure(process.returncode, b"".join(stderr).decode(errors="replace"))


def _feed_stdin(pipe: IO[bytes], input_chunks: Iterable[bytes]) -> None:
    try:
        with contextlib.suppress(BrokenPipeError):  # ffmpeg stopped reading; its exit status tells why
            for chunk in input_chunks:
                pipe.write(chunk)
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, too
            else:
                process.kill()


def raise_if_stopped(program: str, status: int) -> None:
    """Raise where a signal from outside ended a program: it says nothing about the video, unlike a crash.

    Raises OSError for a limit on the size of files, MemoryError for SIGKILL, DependencyError for other signals.
    """
    if status >= 0:
        return
    name = _signal_name(-status)
    if name == "SIGXFSZ":  # as by `ulimit -f`
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if name == "SIGKILL":
        raise MemoryError(f"the system ended {program}; close other programs or use a smaller video")
    if name not in CRASH_SIGNALS:
        raise DependencyError(f"{name} ended {program}: remove what stops programs on this machine, or run it again")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name there
        first = getattr(signal, "SIGRTMIN", number + 1)  # of POSIX alone
        return f"SIGRTMIN+{number - first}" if number > first else f"signal {number}"


def _raise_failure(status: int, stderr: str) -> None:
    for words, number in DISK_ERRORS.items():
        if words in stderr:
            raise OSError(number, os.strerror(number))
    raise_if_stopped("ffmpeg", status)
    lines = [re.sub(r"^\[\S+ @ 0x\w+\] ", "", line) for line in stderr.splitlines() if line.strip()]
    raise FFmpegError(f"ffmpeg ended with {status}: {lines[0] if lines else 'it gave no reason'}")
