"""Audio, pictures and files of generated clips, for the loggers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, WandbLogger

from v2m.analysis.loudness import integrated_loudness
from v2m.analysis.rhythm import track_beats
from v2m.analysis.synchrony import cut_alignment, sync_score
from v2m.core.timing import seconds_of
from v2m.core.types import Audio, Video, VisualFeatures
from v2m.media import audio as sound_files
from v2m.mixing import mixer
from v2m.pipeline.sidecar import container_comment
from v2m.training import spectrogram

LOG_PREFIX = "audio_samples"
Metrics = dict[str, float]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratedClip:
    """One piece with its files; a film where there are pictures."""

    name: str
    audio: Audio
    metrics: Metrics
    audio_path: Path
    spectrogram_path: Path
    video_path: Path | None


def write_artifacts(
    folder: Path, name: str, audio: Audio, picture: VisualFeatures, film: Video | None, *, title: str
) -> GeneratedClip:
    """Measures a piece and writes its files, over older ones of the same name."""
    heard = track_beats(audio)
    beats = np.zeros(0) if heard is None else heard.beats
    paths = {kind: folder / f"{name}.{kind}" for kind in ("flac", "png", "mp4")}
    sound_files.save(audio, paths["flac"])
    spectrogram.plot_spectrogram(paths["png"], audio, picture, beats, title)
    if film is not None:
        mixer.mix(film, audio, paths["mp4"], metadata=container_comment({"recipe": "training"}), overwrite=True)
    found = alignment_metrics(audio, picture, beats)
    return GeneratedClip(name, audio, found, paths["flac"], paths["png"], None if film is None else paths["mp4"])


def alignment_metrics(audio: Audio, picture: VisualFeatures, beats: Any) -> Metrics:
    """Return how a piece fits its video, without metrics that are undefined for it.

    accents, dynamics: as in `v2m.analysis.synchrony`; 0.5 and 0 are chance. hits_above_chance,
    hits_100ms_above_chance: share of cuts with a beat within ±70 and ±100 ms, less the chance level.
    hits_above_shuffled: less that of the same beats shifted circularly. cut_to_beat_ms: the median distance. lufs:
    loudness, −70 for silence.
    """
    how = sync_score(audio, picture)
    cuts = [cut.time for cut in picture.cuts]
    met = cut_alignment(cuts, beats, duration=seconds_of(len(audio), audio.sample_rate))
    figures = {
        "accents": how.accents,
        "dynamics": how.dynamics,
        "hits_above_chance": _difference(met.hits, met.chance),
        "hits_100ms_above_chance": _difference(met.hits_100ms, met.chance_100ms),
        "hits_above_shuffled": _difference(met.hits, met.shuffled),
        "cut_to_beat_ms": met.median_ms,
        "lufs": max(integrated_loudness(audio), -70.0),
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def mean_metrics(figures: Sequence[Metrics]) -> Metrics:
    """Mean of each metric over the clips that have it."""
    every = dict.fromkeys(name for each in figures for name in each)
    return {name: float(np.mean([each[name] for each in figures if name in each])) for name in every}


def write_metrics(folder: Path, step: int, heard: Sequence[GeneratedClip], mean: Mapping[str, float]) -> None:
    held = {"step": step, "mean": dict(mean), "clips": {each.name: each.metrics for each in heard}}
    (folder / "metrics.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def log_artifacts(
    loggers: Sequence[Logger], heard: Sequence[GeneratedClip], figures: Mapping[str, float], step: int
) -> None:
    """Each logger what it can take; one that fails does not stop the others."""
    for each in loggers:
        try:
            _log_to(each, heard, {f"{LOG_PREFIX}/{name}": value for name, value in figures.items()}, step)
        except Exception as error:
            logger.warning("%s did not take what was heard (%s: %s)", type(each).__name__, type(error).__name__, error)


def _log_to(to: Logger, heard: Sequence[GeneratedClip], figures: Mapping[str, float], step: int) -> None:
    if isinstance(to, WandbLogger):
        to.log_metrics({**figures, **_wandb_media(heard)}, step)
        return
    to.log_metrics(dict(figures), step)
    writer: Any = getattr(to, "experiment", None)
    if hasattr(writer, "add_audio"):  # TensorBoard's
        from matplotlib.image import imread

        for each in heard:
            place, wave = f"{LOG_PREFIX}/{each.name}", torch.from_numpy(each.audio.samples.mean(axis=0, keepdims=True))
            writer.add_audio(f"{place}/sound", wave, step, each.audio.sample_rate)
            writer.add_image(f"{place}/spectrogram", imread(each.spectrogram_path)[..., :3], step, dataformats="HWC")


def _wandb_media(heard: Sequence[GeneratedClip]) -> dict[str, Any]:
    """W&B's own records, which take the files as they are."""
    import wandb

    found: dict[str, Any] = {}
    for each in heard:
        place = f"{LOG_PREFIX}/{each.name}"
        found[f"{place}/sound"] = wandb.Audio(str(each.audio_path), caption=each.name)
        found[f"{place}/spectrogram"] = wandb.Image(str(each.spectrogram_path), caption=each.name)
        if each.video_path is not None:
            found[f"{place}/video"] = wandb.Video(str(each.video_path), caption=each.name, format="mp4")
    return found


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
