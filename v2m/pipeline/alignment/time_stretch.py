"""Time stretching at constant pitch along a time map: ffmpeg's filter rubberband with tempo commands.

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

# With "crisp" or "mixed" transients steady tones waver; with channels "apart" the stereo image changes; a longer window
# smears onsets (all measured: bench/README.md, `stretch.py`).
FILTER = "rubberband=transients=smooth:window=short:channels=together"
FRAME_SAMPLES = 256  # commands take effect at the first frame after their time
TAIL_S = 1.0  # of silence appended, so that the filter returns all of the audio


def stretch_audio(recording: Audio, time_map: TimeMap, duration: float) -> Audio:
    """Stretch `recording` along `time_map`, from 0 to `duration` seconds of the copy, with silence where it has none.

    The stretch does not depend on the audio, so that stems stay synchronous.

    Raises:
        FFmpegError: This ffmpeg has no rubberband.
        OSError: The disk is full.
    """
    assert recording.channels <= 2, "the filter keeps two channels together, not more"
    rate = recording.sample_rate
    source_start, target_start = max(0.0, float(time_map.inverse(0.0))), max(0.0, float(time_map.forward(0.0)))
    samples = recording.samples[:, sample_count(source_start, rate) :]
    tail = np.zeros((recording.channels, sample_count(TAIL_S, rate)), np.float32)
    source = np.concatenate([samples, tail], axis=1)
    target = np.zeros((recording.channels, sample_count(duration, rate)), np.float32)
    start = sample_count(target_start, rate)
    stretched = _run_filter(source, rate, _filter_chain(time_map, source_start))[:, : target.shape[1] - start]
    target[:, start : start + stretched.shape[1]] = stretched
    return Audio(target, rate)


def _filter_chain(time_map: TimeMap, start: float) -> str:
    """Return the filters that stretch the recording from second `start` on."""
    tempi = 1 / time_map.stretch_factors
    current = int(np.clip(np.searchsorted(time_map.source, start, side="right") - 1, 0, len(tempi) - 1))
    commands, last = [], tempi[current]
    for knot, tempo in zip(time_map.source[current + 1 : -1] - start, tempi[current + 1 :], strict=True):
        if abs(tempo - last) > 1e-6:
            commands.append(f"{knot:.3f} rubberband tempo {tempo:.6f}")
            last = tempo
    send = f"asendcmd=c='{';'.join(commands)}'," if commands else ""
    return f"asetnsamples=n={FRAME_SAMPLES}:p=0,{send}{FILTER}:tempo={tempi[current]:.6f}"


def _run_filter(samples: NDArray[np.float32], sample_rate: int, chain: str) -> NDArray[np.float32]:
    """Run the filters on a file that the graph reads itself.

    Frames piped in from outside would queue before the filter, more or less of them, and commands would come too early.
    """
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
    """Escape a filter option's value twice: for the option, and for the filter graph around it."""
    option = re.sub(r"([\\':])", r"\\\1", value)
    return re.sub(r"([\\'\[\],; ])", r"\\\1", option)
