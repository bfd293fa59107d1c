"""The report, a PNG: thumbnails, waveform, cuts, beats, loudness and motion on one time axis."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from v2m.analysis.loudness import k_weighted_power, power_to_lufs
from v2m.core import mapped_array, timing
from v2m.core.types import Soundtrack, Video

THUMBNAILS = 10
AXIS = "v2m-axis"  # text chunk of the PNG: the fields of `Axis`
DPI = 110
INK, CUT, BEAT, MUSIC = "#222222", "#d1495b", "#9aa5b1", "#2e6f95"


@dataclass(frozen=True)
class Axis:
    """Pixel columns `left` to `right` of a report show the seconds from `begin` to `end` of the video."""

    left: float
    right: float
    start: float
    end: float

    @classmethod
    def from_png(cls, path: Path) -> Axis:
        """Read the axis of a report; raise ValueError for another PNG."""
        from PIL import Image

        with Image.open(path) as image:
            words = str(getattr(image, "text", {}).get(AXIS, "")).split()
        if len(words) != 4:
            raise ValueError(f"{path.name} is no report of v2m")
        return cls(*map(float, words))

    def to_seconds(self, column: float) -> float:
        """Return the second that a column shows; beside the axis, the nearest end."""
        share = (column - self.left) / (self.right - self.left)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def to_column(self, second: float) -> float:
        return self.left + (second - self.start) / (self.end - self.start) * (self.right - self.left)


def plot_report(path: Path, video: Video, soundtrack: Soundtrack, size: tuple[float, float] = (14.0, 7.0)) -> None:
    """Write a PNG; its seconds are the whole video's, and a text chunk stores its `Axis`."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained", dpi=DPI)
        strip, wave, curves = figure.subplots(3, 1, sharex=True, height_ratios=[1.3, 2, 1.4])
        _thumbnails(strip, video)
        _waveform(wave, video, soundtrack)
        _curves(curves, video, soundtrack)
        curves.set_xlim(0, video.duration)
        curves.set_xlabel("seconds")
        if video.start:  # seconds of the whole video, where a span of it begins later
            ticks = np.array(MaxNLocator(nbins=9).tick_values(video.start, video.start + video.duration))
            ticks = ticks[(ticks >= video.start) & (ticks <= video.start + video.duration)]
            curves.set_xticks(ticks - video.start, [f"{tick:g}" for tick in ticks.round(3)])
        alignment = soundtrack.metadata.get("alignment") or {}
        title = f"{video.path.name}   {video.duration:.1f} s"
        if soundtrack.metadata.get("style"):
            title += f"   {soundtrack.metadata['style']}, {soundtrack.metadata.get('key', '')}"
        if alignment.get("n"):
            title += f"   cuts met: {alignment['hits']:.0%}, by chance {alignment['chance']:.0%}"
        figure.suptitle(title.encode("ascii", "replace").decode(), x=0.01, ha="left", color=INK, parse_math=False)
        figure.draw_without_rendering()  # which lays it out
        box = curves.get_window_extent()
        axis = f"{box.x0:.2f} {box.x1:.2f} {video.start:.4f} {video.start + video.duration:.4f}"
        figure.savefig(path, dpi=DPI, format="png", metadata={AXIS: axis})


def _thumbnails(axes: Axes, video: Video) -> None:
    count = min(THUMBNAILS, len(video.timestamps))
    width = video.duration / count
    middles = [(number + 0.5) * width for number in range(count)]
    box = axes.get_window_extent()
    aspect = 0.96 * box.width / count / box.height  # of the room for one
    for middle, frame in zip(middles, video.frames(middles, width=240), strict=True):
        height, frame_width = frame.shape[:2]
        side = max(0, round(frame_width - height * aspect) // 2)  # cropped to the room, not squeezed
        extent = (middle - 0.48 * width, middle + 0.48 * width, 0, 1)
        axes.imshow(frame[:, side : frame_width - side], extent=extent, aspect="auto")
    axes.set_ylim(0, 1)
    axes.axis("off")


def _waveform(axes: Axes, video: Video, soundtrack: Soundtrack) -> None:
    count = len(soundtrack.audio)
    edges = np.linspace(0, count, min(1600, count) + 1).astype(int).tolist()
    low, high = np.zeros((2, len(edges) - 1), np.float32)
    for column, (start, stop) in enumerate(pairwise(edges)):
        mono = soundtrack.audio.samples[:, start:stop].mean(axis=0)
        low[column], high[column] = mono.min(), mono.max()
        mapped_array.release_pages()
    times = [timing.samples_to_seconds(edge, soundtrack.audio.sample_rate) for edge in edges[:-1]]
    axes.fill_between(times, low, high, color=MUSIC, linewidth=0)
    axes.set_ylabel("waveform")
    top = max(1e-3, float(np.abs([low, high]).max()))
    axes.set_ylim(-1.25 * top, 1.45 * top)
    for beats, height in ((soundtrack.beats, 0.08), (soundtrack.downbeats, 0.2), (soundtrack.accents, 0.14)):
        if beats is not None and len(beats):
            axes.vlines(beats, -1.25 * top, (-1.25 + height) * top, color=BEAT, linewidth=0.8)
    for cut in video.visual_features().cuts:
        axes.axvline(cut.time, color=CUT, linewidth=0.6 + 1.6 * cut.strength, alpha=0.85)
    for section in soundtrack.sections:
        axes.text(section.start + 0.004 * video.duration, 1.2 * top, section.name, color=INK, weight="bold")
        axes.axvline(section.start, ymin=0.86, color=INK, linewidth=0.8)


def _curves(axes: Axes, video: Video, soundtrack: Soundtrack) -> None:
    features = video.visual_features()
    rate = soundtrack.audio.sample_rate
    hop = timing.seconds_to_samples(0.1, rate)
    power = np.pad(k_weighted_power(soundtrack.audio.samples, rate, hop), 2, mode="edge")
    momentary = power_to_lufs(np.convolve(power, np.full(5, 0.2), "valid") + 1e-9)
    middles = [timing.samples_to_seconds(int((number + 0.5) * hop), rate) for number in range(len(momentary))]
    axes.plot(middles, momentary, color=MUSIC, linewidth=1.4)
    axes.set_ylabel("music, LUFS", color=MUSIC)
    axes.set_ylim(float(momentary.max()) - 40, float(momentary.max()) + 3)
    right_axes = axes.twinx()
    right_axes.fill_between(features.times, features.motion, color=CUT, alpha=0.25, linewidth=0)
    right_axes.set_ylabel("motion", color=CUT)
    right_axes.set_ylim(0, 1.1 * max(1e-3, float(features.motion.max())))
