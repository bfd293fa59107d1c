"""Picture of a soundtrack: spectrogram and onset strength, with cuts and beats.

C channels, N samples, T columns, F bins of frequency, K bands.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from v2m.analysis.loudness import amplitude_to_db
from v2m.analysis.synchrony import HOPS_PER_SECOND, onset_strength
from v2m.core.timing import every, sample_count, seconds_of
from v2m.core.types import Audio, Floats, VisualFeatures

MIN_HZ, NUM_BANDS = 40.0, 160  # Hz, and how many bands from there to half the sample rate, each as wide in octaves
MAX_COLUMNS = 1200
RANGE_DB = 80.0  # dB below the loudest
INK, CUT, BEAT = "#222222", "#4cc9f0", "#e9c46a"


def plot_spectrogram(path: Path, audio: Audio, picture: VisualFeatures, beats: Floats | None, title: str) -> None:
    """Write a PNG: cuts as blue lines, as wide as they are strong; beats as ticks between the parts."""
    seconds = seconds_of(len(audio), audio.sample_rate)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11.0, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _plot_levels(above, audio, seconds)
        onsets = onset_strength(audio)
        times = every(HOPS_PER_SECOND, seconds)[: len(onsets)]
        below.fill_between(times, onsets[: len(times)], color=INK, linewidth=0)
        below.set_ylabel("onsets")
        below.set_xlabel("seconds")
        below.set_xlim(0, seconds)
        for cut in picture.cuts:
            for axes in (above, below):
                axes.axvline(cut.time, color=CUT, linewidth=0.6 + 1.6 * min(cut.strength, 1.0), alpha=0.85)
        if beats is not None and len(beats):
            top = 1.05 * max(float(onsets.max(initial=0.0)), 1e-3)
            below.set_ylim(0, 1.12 * top)
            below.vlines(beats, top, 1.12 * top, color=BEAT, linewidth=1.6)
        figure.suptitle(title.encode("ascii", "replace").decode(), x=0.01, ha="left", color=INK, parse_math=False)
        figure.savefig(path, dpi=100, format="png")


def _plot_levels(axes: Axes, audio: Audio, seconds: float) -> None:
    levels, edges = band_levels(audio)
    shown = axes.imshow(
        levels.T, origin="lower", aspect="auto", cmap="magma", vmin=-RANGE_DB, vmax=0.0, interpolation="nearest",
        extent=(0.0, seconds, float(np.log2(edges[0])), float(np.log2(edges[-1]))),
    )  # fmt: skip
    marks = [hertz for hertz in (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000) if edges[0] <= hertz <= edges[-1]]
    axes.set_yticks(np.log2(marks), [f"{hertz}" for hertz in marks])
    axes.set_ylabel("Hz")
    colors = axes.figure.colorbar(shown, ax=axes, pad=0.01)
    colors.set_label("dB below the loudest")


def band_levels(audio: Audio) -> tuple[Floats, Floats]:
    """(T, K) dB below the loudest, of bands between (K + 1,) edges in Hz; T is at most MAX_COLUMNS."""
    size = sample_count(0.064, audio.sample_rate)
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    starts = np.linspace(0, len(audio), min(MAX_COLUMNS, max(1, len(audio) // (size // 8))), endpoint=False).astype(int)
    window = np.hanning(size).astype(np.float32)
    power = np.concatenate(
        [
            np.abs(np.fft.rfft(mono[part[:, None] + np.arange(size)] * window)) ** 2
            for part in np.array_split(starts, max(1, len(starts) // 200))
        ]
    )  # (T, F)
    edges = np.geomspace(MIN_HZ, audio.sample_rate / 2, NUM_BANDS + 1)
    middles = np.sqrt(edges[1:] * edges[:-1])
    bins = np.fft.rfftfreq(size, 1 / audio.sample_rate)
    total = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)
    low, high = np.searchsorted(bins, edges[:-1]), np.searchsorted(bins, edges[1:])
    nearest = np.clip(np.searchsorted(bins, middles), 0, len(bins) - 1)  # where a band is narrower than a bin
    wide = high > low
    mean = np.where(wide, (total[:, high] - total[:, low]) / np.maximum(high - low, 1), power[:, nearest])
    levels = amplitude_to_db(np.sqrt(mean / max(float(mean.max()), 1e-12)))
    return np.maximum(levels, -RANGE_DB), edges
