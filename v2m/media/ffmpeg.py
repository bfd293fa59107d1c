"""Finding ffmpeg, running it, and opening foreign media without letting them reach for other files."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from v2m.core.errors import DependencyError

if TYPE_CHECKING:
    from av.container import InputContainer

# A playlist renamed .mp4 would read other files in spite of the protocol list; the format list stops it.
CONTAINER_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,apng,ogg,mxf"
AUDIO_FORMATS = CONTAINER_FORMATS + ",wav,w64,mp3,flac,aac,aiff,caf,au"
SAFE_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINER_FORMATS}
DISCONTINUOUS_FORMATS = {
    "mpegts",
    "mpeg",
}  # containers whose clock may jump in the middle, as where two recordings were joined
KILLED = -9  # the status of a process that SIGKILL ended; Windows knows neither
DISK_ERRORS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}


class FFmpegError(RuntimeError):
    """ffmpeg ended with an error; the message is the last thing it said."""


def file_url(path: Path) -> str:
    """`path` as ffmpeg and PyAV take it whatever characters it holds."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100 - links stay as they are


def open_media(path: Path, formats: str = CONTAINER_FORMATS) -> InputContainer:
    """Opens a media file for reading. Raises av.error.FFmpegError where it is none, or of no format that is allowed."""
    import av

    return av.open(file_url(path), options={**SAFE_OPTIONS, "format_whitelist": formats}, metadata_errors="ignore")


def input_arguments(path: Path) -> list[str]:
    return [*(word for name, value in SAFE_OPTIONS.items() for word in (f"-{name}", value)), "-i", file_url(path)]


def find_executable() -> str:
    """ffmpeg: `V2M_FFMPEG`, else the one in the imageio-ffmpeg wheel, else the one on PATH.

    Raises:
        DependencyError: None of them is there.
    """
    named = os.environ.get("V2M_FFMPEG")
    if named:
        found = shutil.which(named)
        if found is None:
            raise DependencyError(f"V2M_FFMPEG is {named!r}, which is not a program: unset it or give ffmpeg's path")
        return found
    with contextlib.suppress(ImportError):
        import imageio_ffmpeg

        with contextlib.suppress(RuntimeError):  # an unusual platform: the wheel carries no binary
            return imageio_ffmpeg.get_ffmpeg_exe()
    found = shutil.which("ffmpeg")
    if found is None:
        raise DependencyError("ffmpeg was not found: install imageio-ffmpeg, or set V2M_FFMPEG to its path")
    return found


def ffmpeg_version() -> str:
    """The version that ffmpeg gives of itself, such as "7.1"."""
    return _query_version(find_executable())


@functools.cache
def _query_version(program: str) -> str:
    try:
        said = subprocess.run([program, "-version"], capture_output=True, timeout=20, check=True, text=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DependencyError(f"{program} does not run ({error}): set V2M_FFMPEG to a working ffmpeg") from error
    words = said.split()
    if words[:2] != ["ffmpeg", "version"]:
        raise DependencyError(f"{program} is not ffmpeg: set V2M_FFMPEG to a working one, or unset it")
    return words[2]


def run_ffmpeg(arguments: list[str], input_chunks: Iterable[bytes], timeout: float) -> None:
    """Runs ffmpeg, writing `feed` to its standard input; nothing of it is left running, whatever happens.

    Raises:
        FFmpegError: It failed, or did not end within `timeout` seconds.
        OSError: It said that the disk is full, a quota is used up or the file system is read-only.
        MemoryError: Something else killed it, as the kernel does when memory is short.
    """
    command = [find_executable(), "-hide_banner", "-nostdin", "-y", "-v", "error", *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # a static ffmpeg 7 (imageio-ffmpeg's) crashes on MPEG-TS where it finds glibc's cache of converters of text
        env={"GCONV_PATH": "", **os.environ},
    )
    assert process.stdin is not None
    assert process.stderr is not None
    said: deque[bytes] = deque(maxlen=50)
    listener = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    late = threading.Event()
    timer = threading.Timer(timeout, lambda: (late.set(), _kill(process)))
    listener.start()
    timer.start()
    try:
        _feed_stdin(process.stdin, input_chunks)
        process.wait()
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
        listener.join(timeout=5)
        process.stderr.close()
    if late.is_set():
        raise FFmpegError(f"ffmpeg did not finish within {timeout:.0f} s and was stopped")
    if process.returncode != 0:
        _raise_failure(process.returncode, b"".join(said).decode(errors="replace"))


def _feed_stdin(pipe: IO[bytes], input_chunks: Iterable[bytes]) -> None:
    try:
        for block in input_chunks:
            pipe.write(block)
    except BrokenPipeError:
        pass  # it stopped reading: its exit status says why
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, -KILLED)  # what it started, too
            else:
                process.kill()


def _raise_failure(status: int, said: str) -> None:
    for words, number in DISK_ERRORS.items():
        if words in said:
            raise OSError(number, os.strerror(number))
    if status == KILLED:
        raise MemoryError("the system ended ffmpeg; close other programs or use a smaller video")
    lines = [line for line in said.splitlines() if line.strip()]
    raise FFmpegError(f"ffmpeg ended with {status}: {lines[0] if lines else 'it gave no reason'}")
