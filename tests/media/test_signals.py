"""Signals that end a program: those from outside say nothing about the video."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from v2m.core.errors import DependencyError
from v2m.media.ffmpeg import raise_if_stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")


def end_by_signal(name: str) -> int:
    """Return the status of a shell that a signal ended."""
    return subprocess.run(["bash", "-c", f"ulimit -c 0; kill -{name} $$"], check=False).returncode


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TERM", "SIGTERM"),
        ("VTALRM", "SIGVTALRM"),
        pytest.param(
            "RTMIN+3",
            r"SIGRTMIN\+3",
            marks=pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no real-time signals"),
        ),
    ],
)
def test_signal_from_outside_is_named(name: str, words: str) -> None:
    with pytest.raises(DependencyError, match=f"^{words} ended ffmpeg: "):
        raise_if_stopped("ffmpeg", end_by_signal(name))


def test_signals_of_limits_are_their_errors() -> None:
    with pytest.raises(OSError, match="File too large"):
        raise_if_stopped("ffmpeg", end_by_signal("XFSZ"))
    with pytest.raises(MemoryError, match="the system ended ffmpeg"):
        raise_if_stopped("ffmpeg", end_by_signal("KILL"))


@pytest.mark.parametrize("name", ["SEGV", "ABRT"])
def test_crash_is_left_to_the_caller(name: str) -> None:
    status = end_by_signal(name)
    raise_if_stopped("ffmpeg", status)
    assert status == -getattr(signal, f"SIG{name}")


def test_an_end_without_a_signal_is_no_stop() -> None:
    raise_if_stopped("ffmpeg", 0)
    with pytest.raises(DependencyError, match="ffmpeg"):
        raise_if_stopped("ffmpeg", end_by_signal("TERM"))
