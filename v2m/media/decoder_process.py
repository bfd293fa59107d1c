"""The parent's end of the decoder process: requests with a time limit, and its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import v2m
from v2m.core.errors import InvalidInputError
from v2m.media.ffmpeg import raise_if_stopped

MEMORY_LIMIT = 4_000_000_000  # bytes of address space, by default
_idle: list[DecoderProcess] = []  # at most one, started ahead


class DecoderProcessError(Exception):
    """The decoder process was killed at its time limit, died, or could not seek."""


class DecoderProcess:
    """A process that demuxes and decodes, started by a request where none runs. Not thread-safe.

    It ends with this object, and with the parent process however that ends.
    """

    def __init__(self, memory_limit: int) -> None:
        self._memory_limit = memory_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize | None = None

    def request(self, message: dict[str, Any], timeout: float) -> Iterator[tuple[dict[str, Any], bytearray]]:
        """Yield the replies to `message` as they come. Leaving early ends the process.

        `timeout` is the seconds of waiting for replies, all together. Raises InvalidInputError where the child refuses
        the file, DecoderProcessError where it fails at it, OSError for a full disk.
        """
        process = self._process or self._adopt() or self._start()
        pipe, complete = _TimedPipe(process, timeout), False
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            while True:
                header = json.loads(pipe.read_line())
                payload = pipe.read_exactly(header["bytes"])
                complete = bool(header.keys() & {"done", "refused", "seek_error", "disk_error", "bug"})
                if "refused" in header:
                    raise InvalidInputError(*header["refused"])
                if "seek_error" in header:
                    raise DecoderProcessError(header["seek_error"])
                if "disk_error" in header:
                    raise OSError(header["disk_error"], os.strerror(header["disk_error"]))
                if "bug" in header:
                    raise AssertionError(header["bug"])
                if complete:
                    return
                yield header, payload
        finally:
            if pipe.release() or not complete:
                self.close()

    def close(self) -> None:
        """End the process, if there is one, and wait until it is gone."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def _adopt(self) -> subprocess.Popen[bytes] | None:
        """Take over the process that was started ahead; return None where there is none with the same limit."""
        for other in _idle:
            if other._memory_limit == self._memory_limit and other._process is not None:
                _idle.remove(other)
                assert other._finalizer is not None
                other._finalizer.detach()
                self._process = other._process
                self._finalizer = weakref.finalize(self, _kill, self._process)
                return self._process
        return None

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [str(Path(v2m.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OPENBLAS_NUM_THREADS": "1",  # its threads, and malloc's arenas, would use up the address space
            "MALLOC_ARENA_MAX": "2",
        }
        command = [sys.executable, "-P", "-m", "v2m.media.decoder_worker", str(self._memory_limit)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL  # native libraries print on stderr
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, bufsize=0, env=environment)
        self._finalizer = weakref.finalize(self, _kill, self._process)
        return self._process


def start_ahead(argv: Sequence[str], memory_limit: int = MEMORY_LIMIT) -> None:
    """Start a process for the first `DecoderProcess`, where a command names a file or folder.

    While the command's modules are imported, those of the process are, too.
    """
    if None in {sys.stdin, sys.stdout, sys.stderr}:  # a pipe would take the number of the one that is closed
        return
    if not any(map(os.path.exists, argv)):
        return
    process = DecoderProcess(memory_limit)
    process._start()
    _idle[:] = [process]


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


class _TimedPipe:
    """The process's stdin and stdout, with a limit on the time spent waiting for them.

    Not every system can wait for pipes with a time limit: a thread kills the process when the time is over, which ends
    the blocking read or write.
    """

    def __init__(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._timeout = process, timeout
        self._stdin_fd, self._stdout_fd = process.stdin.fileno(), process.stdout.fileno()
        self._buffer = bytearray()
        self._spent = 0.0
        self._since: float | None = None  # when the read or write under way began
        self._expired, self._released, self._lock = False, threading.Event(), threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def release(self) -> bool:
        """Stop watching; return whether the time was over before, so that the process is killed."""
        with self._lock:
            self._released.set()
            return self._expired

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                with self._waiting():
                    written = os.write(self._stdin_fd, view)
                view = view[written:]
        except OSError as error:  # BrokenPipeError; of Windows EINVAL, too
            raise self._exit_error() from error

    def read_line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer += self._read(1 << 16)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def read_exactly(self, count: int) -> bytearray:
        data = self._buffer[:count]
        del self._buffer[:count]
        while len(data) < count:
            data += self._read(min(count - len(data), 1 << 20))
        return data

    def _read(self, max_bytes: int) -> bytes:
        with self._waiting():
            data = os.read(self._stdout_fd, max_bytes)
        if not data:
            raise self._exit_error()
        return data

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None
            self._spent += time.monotonic() - start

    def _watch(self) -> None:
        remaining = self._timeout
        while not self._released.wait(max(remaining, 0.01)):
            since = self._since
            remaining = self._timeout - self._spent - (0.0 if since is None else time.monotonic() - since)
            with self._lock:
                if remaining <= 0 and not self._released.is_set():
                    self._expired = True
                    self._process.kill()
                    return

    def _exit_error(self) -> DecoderProcessError:
        """Return the error of the ended process; raise where it was stopped from outside."""
        status = self._process.wait()
        if self._expired:
            return DecoderProcessError(f"was not done after {self._timeout:.0f} s")
        raise_if_stopped("the decoder", status)
        return DecoderProcessError(f"ended the decoder (status {status})")
