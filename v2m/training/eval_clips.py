"""The fixed clips that training generates music for: videos, or validation samples of the shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from v2m.analysis.visual_events import features_from_events
from v2m.checkpoints import V2M
from v2m.core.errors import DependencyError
from v2m.core.timing import samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, VisualFeatures
from v2m.data.collate import Batch, CropCollator
from v2m.data.module import ResumableLoader
from v2m.data.shards import CorruptSampleError, decode
from v2m.data.sources import discover_videos
from v2m.generators.in_memory import STRIDE_RATIO
from v2m.generators.musicgen_engine import MusicGenEngine, decode_codes
from v2m.generators.options import WindowOptions
from v2m.media import video as video_files
from v2m.media.mux import write_preview
from v2m.models.inference.decoder import Decoder
from v2m.models.lora import merged_weights
from v2m.taggers.heuristic import HeuristicTagger

if TYPE_CHECKING:
    from v2m.generators.vidmuse_engine import VisualFrontend
    from v2m.training.module import LitMusicLM

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateOptions:
    """Options of generation: sampling, and the seed."""

    decoder: Decoder
    sampling: SamplingConfig
    seed: int
    progress: ProgressFn

    def windows(self, model: V2M) -> WindowOptions:
        """Windows of the length that the model is trained on."""
        window = model.config.segment_duration
        return WindowOptions(self.sampling, window, STRIDE_RATIO * window)


@dataclass(frozen=True)
class VideoClip:
    """A video with a small copy of its pictures. Models with a visual conditioner need `visual_frontend`."""

    name: str
    video: Video
    tags: Tags
    preview: Video
    engine: MusicGenEngine
    visual_frontend: VisualFrontend | None
    reference: None = None

    @property
    def duration(self) -> float:
        return self.video.duration

    @property
    def visual_features(self) -> VisualFeatures:
        return self.video.visual_features()

    def generate(self, model: V2M, options: GenerateOptions) -> Soundtrack:
        player, windows = self.engine.with_decoder(options.decoder), options.windows(model)
        seed, progress = options.seed, options.progress
        if self.visual_frontend is None:
            return player.generate(self.video, self.tags, None, windows, seed=seed, progress=progress)
        from v2m.generators.vidmuse_engine import VideoMusicEngine

        engine = VideoMusicEngine(model, player, self.visual_frontend, next(model.parameters()).device)
        return engine.generate(self.video, self.tags, windows, seed=seed, progress=progress)


@dataclass(frozen=True)
class ShardClip:
    """A validation sample: one row, on the model's device, with its original music as reference."""

    name: str
    batch: Batch
    duration: float
    visual_features: VisualFeatures
    engine: MusicGenEngine
    reference: Audio
    players: Tags  # of a score, where the model writes scores
    video: None = None
    tags: None = None
    preview: None = None

    @torch.inference_mode()
    def generate(self, model: V2M, options: GenerateOptions) -> Soundtrack:
        """Generate with the sample's conditions; a model without learned nulls gets no guidance."""
        has_text = model.config.uses_text and bool(self.batch.text.mask.any())
        text = model.project_text(self.batch.text) if has_text else None
        has_video, sampling = model.conditioner is not None, options.sampling
        if has_video and not model.config.has_null_tokens:
            sampling = replace(sampling, cfg_scale=1.0, video_cfg_scale=None)
        video = model.encode_video(self.batch.visual) if has_video else None
        branches = model.cfg_branches(sampling, text=text, video=video)
        windows = replace(options.windows(model), sampling=sampling)
        return self.engine.with_decoder(options.decoder).generate_from_branches(
            self.duration, lambda *_: branches, windows, seed=options.seed, tags=self.players, progress=options.progress
        )


EvalClip = VideoClip | ShardClip


def check_minimums(**settings: tuple[float, float]) -> list[str]:
    """Return the problems of settings below their minimum, given as name=(value, minimum)."""
    return [f"{name} {value:g} must be {low} or more" for name, (value, low) in settings.items() if value < low]


def load_clips(
    videos: Sequence[Path] | None,
    loader: ResumableLoader | None,
    num_clips: int,
    max_seconds: float,
    module: LitMusicLM,
    *,
    preview_dir: Path,
) -> Mapping[str, EvalClip]:
    """Return clips of at most `max_seconds` by name: of `videos`, or without any the samples of `loader`.

    Raises DependencyError where frozen models or a shard are missing, InvalidInputError or UsageError for a bad video.
    """
    settings = num_clips, max_seconds, module.music_model, module.device
    if videos is not None:
        clips = _video_clips(videos, *settings, preview_dir=preview_dir)
    else:
        assert loader is not None, "there are neither videos nor samples"
        clips = _shard_clips(loader, *settings)
    return {clip.name: clip for clip in clips}


def generate_clips(
    clips: Mapping[str, EvalClip], model: V2M, sampling: SamplingConfig, seed: int, progress: ProgressFn
) -> Iterator[tuple[EvalClip, Audio]]:
    """Yield each clip with the music that the model generates for it; the n-th has the seed `seed` + n."""
    with merged_weights(model):
        decoder = Decoder(model.lm)
    for number, clip in enumerate(clips.values()):
        options = GenerateOptions(decoder, sampling, seed + number, progress)
        yield clip, clip.generate(model, options).audio


def _video_clips(
    videos: Sequence[Path], count: int, seconds: float, model: V2M, device: torch.device, *, preview_dir: Path
) -> Iterator[EvalClip]:
    engine, visual_frontend = MusicGenEngine.from_model(model, "the model", device, None), None
    if model.config.conditioner is not None:
        from v2m.generators.vidmuse_engine import VisualFrontend

        visual_frontend = VisualFrontend.load(model, "the model", device)
    preview_dir.mkdir(parents=True, exist_ok=True)
    sources = discover_videos(videos)[:count]
    stems = [source.video.stem for source in sources]
    for source, stem in zip(sources, stems, strict=True):
        name = stem if stems.count(stem) == 1 else source.key
        video, preview = video_files.open(source.video).crop(0.0, seconds), preview_dir / f"{name}.mp4"
        write_preview(video, preview)
        tags = HeuristicTagger().tag(video, Tags())
        yield VideoClip(name, video, tags, video_files.open(preview), engine, visual_frontend)


def _shard_clips(
    loader: ResumableLoader, count: int, seconds: float, model: V2M, device: torch.device
) -> Iterator[EvalClip]:
    """Yield the first samples that can be decoded, each from its start and at most a window long."""
    manifest = loader.shards.manifest
    engine = MusicGenEngine.from_model(model, manifest.codec, device, None, with_text=False)
    collator = CropCollator(manifest, min(seconds, model.config.segment_duration))
    num_clips = 0
    for number in range(len(loader.shards)):
        if num_clips == count:
            return
        try:
            whole = decode(loader.shards.read_members(number), manifest)
            sample, tags = collator.crop(whole, 0.0), Tags(**whole.meta.tags)
        except CorruptSampleError as error:
            logger.warning("skipped: %s", error)
            continue
        num_clips += 1
        num_frames = sample.codes.shape[1]
        duration = samples_to_seconds(num_frames, manifest.codec_frame_rate)
        batch = collator.collate([sample]).to(device)
        num_samples = seconds_to_samples(duration, engine.codec.spec.sample_rate)
        samples = decode_codes(engine.codec, batch.codes[..., :num_frames], num_samples, tags)
        features = features_from_events(sample.events, manifest.event_channels, duration)
        reference = Audio(samples, engine.codec.spec.sample_rate)
        yield ShardClip(sample.key, batch, duration, features, engine, reference, tags)
    if not num_clips:
        raise DependencyError("no validation sample can be used")
