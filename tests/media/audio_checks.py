"""Test signals, and measurements of files by an independent meter (ffmpeg's ebur128)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.conftest import FFMPEG
from v2m.core.types import Audio

SAMPLE_RATE = 48_000


def ebur128(path: Path) -> tuple[float, float]:
    """Integrated loudness (LUFS) and true peak (dBTP) of a file's first audio track."""
    command = [FFMPEG, "-hide_banner", "-nostats", "-i", str(path), "-map", "0:a:0"]
    command += ["-af", "ebur128=peak=true:framelog=quiet", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    summary = said[said.rfind("Summary") :]
    result = [re.search(rf"{name}:\s+(-?[\d.]+|-inf|nan)", summary) for name in ("I", "Peak")]
    assert result[0] is not None, said
    assert result[1] is not None, said
    return float(result[0][1]), float(result[1][1])


def decode_track(path: Path, track: int = 0) -> tuple[NDArray[np.float32], float]:
    """(N,) left channel at its own rate of an audio track, and the second of its first sample after the first picture.

    Reads frame by frame by the stream's own times, and so shares no code with v2m.
    """
    with av.open(str(path)) as media:
        zero = next(frame.time for frame in media.decode(media.streams.video[0]))
    pieces: list[tuple[float, NDArray[np.float32]]] = []
    with av.open(str(path)) as media:
        at, rate = 0.0, media.streams.audio[track].rate
        for frame in media.decode(media.streams.audio[track]):
            data = frame.to_ndarray()
            left = data.reshape(-1, frame.layout.nb_channels)[:, 0] if frame.format.is_packed else data[0]
            scale = 32768 if left.dtype == np.int16 else 1
            at = at if frame.time is None else frame.time
            pieces.append((at, (left / scale).astype(np.float32)))
            at += frame.samples / rate
    first = pieces[0][0]
    out = np.zeros(round((pieces[-1][0] - first) * rate) + len(pieces[-1][1]) + 8, np.float32)
    for start, piece in pieces:
        low = round((start - first) * rate)
        out[low : low + len(piece)] = piece
    assert zero is not None
    return out, first - zero


def stereo(left: NDArray, rate: int = SAMPLE_RATE) -> Audio:
    return Audio(np.stack([left, left]).astype(np.float32), rate)


def tone(seconds: float, level: float = 0.1, hertz: float = 997.0, rate: int = SAMPLE_RATE) -> Audio:
    return stereo(level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate)


def drums(seconds: float, rate: int = SAMPLE_RATE) -> Audio:
    """A very peaky signal: bursts of noise that die within 50 ms, over a quiet hum."""
    random, time = np.random.default_rng(1), np.arange(round(seconds * rate)) / rate
    hum = 0.02 * np.sin(2 * np.pi * 110 * time)
    return stereo(hum + 0.3 * random.standard_normal(len(time)) * np.exp(-(time % 0.5) * 60), rate)


def bursts(seconds: float, spans: list[tuple[float, float]], level: float, hiss: float = 0.0) -> Audio:
    """A speech-like signal: noise that swells five times a second inside `spans`, over a hiss."""
    random, time = np.random.default_rng(2), np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    inside = np.zeros(len(time))
    for start, end in spans:
        inside[(time >= start) & (time < end)] = 1
    syllables = 0.3 + 0.7 * np.sin(np.pi * 5 * time) ** 2
    return stereo((level * inside * syllables + hiss) * random.standard_normal(len(time)))


CLICK = 0.5 * np.cos(2 * np.pi * 2000 * np.arange(-240, 240) / SAMPLE_RATE) * np.hanning(480)


def clicks(seconds: float, times: list[float], level: float = 1.0) -> Audio:
    """Silence with a 10 ms burst around each of `times`."""
    left = np.zeros(round(seconds * SAMPLE_RATE))
    for time in times:
        middle = round(time * SAMPLE_RATE)
        left[middle - 240 : middle + 240] += level * CLICK
    return stereo(left)


def click_time(samples: NDArray[np.float32], start: float, rate: int = SAMPLE_RATE) -> float:
    """The second at which the burst lies that fits best."""
    assert rate == SAMPLE_RATE
    return start + (int(np.argmax(np.correlate(samples, CLICK.astype(np.float32), "valid"))) + 240) / rate
