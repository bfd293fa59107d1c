"""The parent's end of the decoding process: asks, waits no longer than allowed, kills and reaps."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import v2m
from v2m.core.errors import InvalidInputError


class DecoderProcessError(Exception):
    """The decoding process was killed at its time limit, died, or (`SeekError`'s words) could not seek."""


class DecoderProcess:
    """One decoding process, started when first asked and started anew after it had to be ended.

    It dies with this object, and with this process however that ends. Not for several threads at once.
    """

    def __init__(self, memory_limit: int) -> None:
        self._memory_limit = memory_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize | None = None

    def request(self, message: dict[str, Any], timeout: float) -> Iterator[tuple[dict[str, Any], bytearray]]:
        """The replies to `request` as they come; `seconds` limits the time spent waiting for them, all together.

        Raises InvalidInputError when the child refuses the file, DecoderProcessError when it fails at it. Leaving
        early ends the
        process.
        """
        process = self._process or self._start()
        pipe, complete = _TimedPipe(process, timeout), False
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            while True:
                header = json.loads(pipe.read_line())
                payload = pipe.read_exactly(header["bytes"])
                complete = bool(header.keys() & {"done", "refused", "unsought", "bug"})
                if "refused" in header:
                    raise InvalidInputError(*header["refused"])
                if "unsought" in header:
                    raise DecoderProcessError(header["unsought"])
                if "bug" in header:
                    raise AssertionError(header["bug"])
                if complete:
                    return
                yield header, payload
        finally:
            if not complete:
                self.close()

    def close(self) -> None:
        """Ends the process, if there is one, and waits until it is gone."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def _start(self) -> subprocess.Popen[bytes]:
        package = str(Path(v2m.__file__).parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OPENBLAS_NUM_THREADS": "1",  # its threads, and malloc's arenas, would use up the address space
            "MALLOC_ARENA_MAX": "2",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "v2m.media.decoder_worker", str(self._memory_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # native libraries talk there
            bufsize=0,
            env=environment,
        )
        self._finalizer = weakref.finalize(self, _kill, self._process)
        return self._process


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


class _TimedPipe:
    """Writing to and reading from the process with a limit on the time spent waiting."""

    def __init__(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._remaining, self._timeout = process, timeout, timeout
        self._stdin_fd, self._stdout_fd = process.stdin.fileno(), process.stdout.fileno()
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                self._wait(self._stdin_fd, select.POLLOUT)
                view = view[os.write(self._stdin_fd, view[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            raise self._exit_error() from None

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
        self._wait(self._stdout_fd, select.POLLIN)
        data = os.read(self._stdout_fd, max_bytes)
        if not data:
            raise self._exit_error()
        return data

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        begin = time.monotonic()
        ready = poll.poll(max(0.0, self._remaining) * 1000)
        self._remaining -= time.monotonic() - begin
        if not ready:
            raise DecoderProcessError(f"was not done after {self._timeout:.0f} s")

    def _exit_error(self) -> DecoderProcessError:
        """What to raise. MemoryError where something else killed the process, as the kernel does when it is short."""
        if self._process.wait() == -signal.SIGKILL:
            raise MemoryError("the system ended the decoder; close other programs or use a smaller video")
        return DecoderProcessError(f"ended the decoder (status {self._process.returncode})")
