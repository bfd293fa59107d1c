"""Files of generated clips (audio, spectrogram, video, metrics), and their logging."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from v2m.analysis.loudness import amplitude_to_db, integrated_loudness
from v2m.analysis.rhythm import track_beats
from v2m.analysis.synchrony import HOPS_PER_SECOND, cut_alignment, onset_strength, sync_score
from v2m.core.timing import samples_to_seconds, seconds_to_samples, time_grid
from v2m.core.types import Audio, Floats, Video, VisualFeatures
from v2m.evaluation.per_clip import above_chance
from v2m.media import audio as audio_files
from v2m.mixing import mixer
from v2m.pipeline.sidecar import container_comment

LOG_PREFIX = "audio_samples"
MIN_HZ, NUM_BANDS = 40.0, 160  # bands from there to half the sample rate, each as wide in octaves
MAX_COLUMNS = 1200
RANGE_DB = 80.0  # dB below the loudest
INK_COLOR, CUT_COLOR, BEAT_COLOR = "#222222", "#4cc9f0", "#e9c46a"
Metrics = dict[str, float]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratedClip:
    """A generated soundtrack with its files; `video_path` where the clip has pictures."""

    name: str
    audio: Audio
    metrics: Metrics
    audio_path: Path
    spectrogram_path: Path
    video_path: Path | None


def write_artifacts(
    folder: Path, name: str, audio: Audio, features: VisualFeatures, preview: Video | None, *, title: str
) -> GeneratedClip:
    """Measure a soundtrack and write its files, over older ones of the same name."""
    grid = track_beats(audio)
    beats = np.zeros(0) if grid is None else grid.beats
    audio_path, image_path, video_path = (folder / f"{name}.{suffix}" for suffix in ("flac", "png", "mp4"))
    audio_files.save(audio, audio_path)
    plot_spectrogram(image_path, audio, features, beats, title)
    if preview is not None:
        mixer.mix(preview, audio, video_path, metadata=container_comment("training"), overwrite=True)
    metrics = alignment_metrics(audio, features, beats)
    return GeneratedClip(name, audio, metrics, audio_path, image_path, None if preview is None else video_path)


def alignment_metrics(audio: Audio, features: VisualFeatures, beats: Any) -> Metrics:
    """Return the fit of a soundtrack to its video, without metrics that are undefined for it.

    accents, dynamics: as in `v2m.analysis.synchrony`; 0.5 and 0 are chance. hits_above_chance,
    hits_100ms_above_chance: share of cuts with a beat within ±70 and ±100 ms, less the chance level.
    hits_above_shuffled: less that of the same beats shifted circularly. cut_to_beat_ms: the median distance. lufs:
    loudness, −70 for silence.
    """
    sync = sync_score(audio, features)
    cuts = [cut.time for cut in features.cuts]
    alignment = cut_alignment(cuts, beats, duration=samples_to_seconds(len(audio), audio.sample_rate))
    values = {
        "accents": sync.accents,
        "dynamics": sync.dynamics,
        "hits_above_chance": above_chance(alignment.hits, alignment.chance),
        "hits_100ms_above_chance": above_chance(alignment.hits_100ms, alignment.chance_100ms),
        "hits_above_shuffled": above_chance(alignment.hits, alignment.shuffled),
        "cut_to_beat_ms": alignment.median_ms,
        "lufs": max(integrated_loudness(audio), -70.0),
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def mean_metrics(rows: Sequence[Metrics]) -> Metrics:
    """Return the mean of each metric over the clips that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def write_metrics(folder: Path, step: int, clips: Sequence[GeneratedClip], mean: Mapping[str, float]) -> None:
    content = {"step": step, "mean": dict(mean), "clips": {clip.name: clip.metrics for clip in clips}}
    (folder / "metrics.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def log_artifacts(
    loggers: Sequence[Logger], clips: Sequence[GeneratedClip], metrics: Mapping[str, float], step: int
) -> None:
    """Log metrics, and media where the logger supports them; a logger that fails does not stop the others."""
    for target in loggers:
        try:
            _log_to(target, clips, {f"{LOG_PREFIX}/{name}": value for name, value in metrics.items()}, step)
        except Exception as error:
            names = type(target).__name__, type(error).__name__
            logger.warning("%s did not log the audio samples (%s: %s)", *names, error)


def _log_to(target: Logger, clips: Sequence[GeneratedClip], metrics: Mapping[str, float], step: int) -> None:
    if isinstance(target, WandbLogger):
        target.log_metrics({**metrics, **_wandb_media(clips)}, step)
        return
    target.log_metrics(dict(metrics), step)
    writer: Any = getattr(target, "experiment", None)
    if hasattr(writer, "add_audio"):  # TensorBoard's
        from matplotlib.image import imread

        for clip in clips:
            key, wave = f"{LOG_PREFIX}/{clip.name}", torch.from_numpy(clip.audio.samples.mean(axis=0, keepdims=True))
            writer.add_audio(f"{key}/sound", wave, step, clip.audio.sample_rate)
            writer.add_image(f"{key}/spectrogram", imread(clip.spectrogram_path)[..., :3], step, dataformats="HWC")


def _wandb_media(clips: Sequence[GeneratedClip]) -> dict[str, Any]:
    """Return W&B's media objects, which take the files as they are."""
    import wandb

    media: dict[str, Any] = {}
    for clip in clips:
        key = f"{LOG_PREFIX}/{clip.name}"
        media[f"{key}/sound"] = wandb.Audio(str(clip.audio_path), caption=clip.name)
        media[f"{key}/spectrogram"] = wandb.Image(str(clip.spectrogram_path), caption=clip.name)
        if clip.video_path is not None:
            media[f"{key}/video"] = wandb.Video(str(clip.video_path), caption=clip.name, format="mp4")
    return media


def plot_spectrogram(path: Path, audio: Audio, features: VisualFeatures, beats: Floats | None, title: str) -> None:
    """Write a PNG: spectrogram, onset strength, cuts as lines as wide as they are strong, beats as ticks."""
    seconds = samples_to_seconds(len(audio), audio.sample_rate)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11.0, 4.6), layout="constrained")
        spectrum_axes, onset_axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _plot_levels(spectrum_axes, audio, seconds)
        onsets = onset_strength(audio)
        times = time_grid(HOPS_PER_SECOND, seconds)[: len(onsets)]
        onset_axes.fill_between(times, onsets[: len(times)], color=INK_COLOR, linewidth=0)
        onset_axes.set_ylabel("onsets")
        onset_axes.set_xlabel("seconds")
        onset_axes.set_xlim(0, seconds)
        for cut in features.cuts:
            for axes in (spectrum_axes, onset_axes):
                axes.axvline(cut.time, color=CUT_COLOR, linewidth=0.6 + 1.6 * min(cut.strength, 1.0), alpha=0.85)
        if beats is not None and len(beats):
            top = 1.05 * max(float(onsets.max(initial=0.0)), 1e-3)
            onset_axes.set_ylim(0, 1.12 * top)
            onset_axes.vlines(beats, top, 1.12 * top, color=BEAT_COLOR, linewidth=1.6)
        figure.suptitle(title.encode("ascii", "replace").decode(), x=0.01, ha="left", color=INK_COLOR, parse_math=False)
        figure.savefig(path, dpi=100, format="png")


def _plot_levels(axes: Axes, audio: Audio, seconds: float) -> None:
    levels, edges = band_levels(audio)
    image = axes.imshow(
        levels.T, origin="lower", aspect="auto", cmap="magma", vmin=-RANGE_DB, vmax=0.0, interpolation="nearest",
        extent=(0.0, seconds, float(np.log2(edges[0])), float(np.log2(edges[-1]))),
    )  # fmt: skip
    ticks = [hertz for hertz in (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000) if edges[0] <= hertz <= edges[-1]]
    axes.set_yticks(np.log2(ticks), [f"{hertz}" for hertz in ticks])
    axes.set_ylabel("Hz")
    axes.figure.colorbar(image, ax=axes, pad=0.01).set_label("dB below the loudest")


def band_levels(audio: Audio) -> tuple[Floats, Floats]:
    """Return levels (T columns, K bands) in dB, −RANGE_DB to 0 of the loudest, and edges (K + 1,) in Hz."""
    size = seconds_to_samples(0.064, audio.sample_rate)
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    starts = np.linspace(0, len(audio), min(MAX_COLUMNS, max(1, len(audio) // (size // 8))), endpoint=False).astype(int)
    window = np.hanning(size).astype(np.float32)
    chunks = np.array_split(starts, max(1, len(starts) // 200))
    spectra = [np.fft.rfft(mono[chunk[:, None] + np.arange(size)] * window) for chunk in chunks]
    power = np.concatenate([np.abs(spectrum) ** 2 for spectrum in spectra])  # (T, frequency bins)
    edges = np.geomspace(MIN_HZ, audio.sample_rate / 2, NUM_BANDS + 1)
    centers = np.sqrt(edges[1:] * edges[:-1])
    bins = np.fft.rfftfreq(size, 1 / audio.sample_rate)
    total = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)
    low, high = np.searchsorted(bins, edges[:-1]), np.searchsorted(bins, edges[1:])
    nearest = np.clip(np.searchsorted(bins, centers), 0, len(bins) - 1)  # where a band is narrower than a bin
    contains_bin = high > low
    mean = np.where(contains_bin, (total[:, high] - total[:, low]) / np.maximum(high - low, 1), power[:, nearest])
    levels = amplitude_to_db(np.sqrt(mean / max(float(mean.max()), 1e-12)))
    return np.maximum(levels, -RANGE_DB), edges
