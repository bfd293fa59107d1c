"""Sound played faster here and slower there at the same pitch: ffmpeg's filter rubberband, whose tempo commands move.

C channels (1 or 2), N samples, B knots.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import TimeMap, sample_count, seconds_of
from v2m.core.types import Audio
from v2m.media import audio, ffmpeg

# With "crisp" or "mixed" transients steady tones waver; apart, the sides of a stereo sound lose each other; a longer
# window smears what begins (all measured: bench/README.md).
FILTER = "rubberband=transients=smooth:window=short:channels=together"
FRAME_SAMPLES = 256  # samples: commands take effect at the first frame after their time
TAIL_S = 1.0  # seconds of silence behind the sound, so that the filter gives all of it


def stretch_audio(recording: Audio, time_map: TimeMap, duration: float) -> Audio:
    """`sound` along `course`, from 0 to `duration` seconds of the copy; silence where the course has no sound.

    What is added to or taken from a moment does not depend on the sound: stems stay in step.

    Raises:
        FFmpegError: This ffmpeg has no rubberband.
        OSError: The disk is full.
    """
    assert recording.channels <= 2, "the filter keeps two channels together, not more"
    rate = recording.sample_rate
    begin, first = max(0.0, float(time_map.inverse(0.0))), max(0.0, float(time_map.forward(0.0)))
    samples = recording.samples[:, sample_count(begin, rate) :]
    tail = np.zeros((recording.channels, sample_count(TAIL_S, rate)), np.float32)
    source = np.concatenate([samples, tail], axis=1)
    out = np.zeros((recording.channels, sample_count(duration, rate)), np.float32)
    lead = sample_count(first, rate)
    got = _run_filter(source, rate, _filter_chain(time_map, begin))[:, : out.shape[1] - lead]
    out[:, lead : lead + got.shape[1]] = got
    return Audio(out, rate)


def _filter_chain(course: TimeMap, begin: float) -> str:
    """The filters that play what follows `begin` of the recording along `course`."""
    tempi = 1 / course.stretch_factors
    current = int(np.clip(np.searchsorted(course.source, begin, side="right") - 1, 0, len(tempi) - 1))
    commands, last = [], tempi[current]
    for knot, tempo in zip(course.source[current + 1 : -1] - begin, tempi[current + 1 :], strict=True):
        if abs(tempo - last) > 1e-6:
            commands.append(f"{knot:.3f} rubberband tempo {tempo:.6f}")
            last = tempo
    sent = f"asendcmd=c='{';'.join(commands)}'," if commands else ""
    return f"asetnsamples=n={FRAME_SAMPLES}:p=0,{sent}{FILTER}:tempo={tempi[current]:.6f}"


def _run_filter(samples: NDArray[np.float32], sample_rate: int, chain: str) -> NDArray[np.float32]:
    """Read by the graph itself, frame after frame as they are wanted: fed from outside, frames queue before the filter,
    one time more than another, and commands come too early."""
    channels, count = samples.shape
    with tempfile.TemporaryDirectory(prefix="v2m-") as folder:
        source, out = Path(folder) / "in.wav", Path(folder) / "out.f32"
        audio.save(Audio(samples, sample_rate), source)
        graph = f"amovie={_escape_option(str(source))},{chain}"
        ffmpeg.run_ffmpeg(
            ["-f", "lavfi", "-i", graph, "-f", "f32le", f"file:{out}"],
            (),
            timeout=60 + 2 * seconds_of(count, sample_rate),
        )
        return np.fromfile(out, np.float32).reshape(-1, channels).T


def _escape_option(value: str) -> str:
    """As ffmpeg reads a filter's option in a graph: escaped once for the one and once for the other."""
    option = re.sub(r"([\\':])", r"\\\1", value)
    return re.sub(r"([\\'\[\],; ])", r"\\\1", option)
