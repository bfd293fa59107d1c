"""Fixed clips that music is generated for during training: videos, or samples of validation shards.

K codebooks, T codec frames, R instants of rhythm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from v2m.analysis.visual_events import features_from_events as picture_of
from v2m.checkpoints import V2M
from v2m.core.errors import DependencyError
from v2m.core.timing import sample_count, seconds_of
from v2m.core.types import Audio, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, VisualFeatures
from v2m.data.collate import Batch, CropCollator
from v2m.data.module import ResumableLoader
from v2m.data.shards import CorruptSampleError, decode
from v2m.data.sources import discover_videos
from v2m.generators.musicgen.engine import MusicGenEngine
from v2m.models.inference.decoder import Decoder

STRIDE = 0.6  # of a window, to the next one: as in use

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateOptions:
    """Options of generation: sampling, and the seed."""

    decoder: Decoder
    sampling: SamplingConfig
    seed: int
    progress: ProgressFn

    def as_kwargs(self, model: V2M) -> dict[str, Any]:
        """Keyword arguments of the engine."""
        window = model.config.segment_duration
        about = {"sampling": self.sampling, "seed": self.seed, "progress": self.progress}
        return {"window": window, "stride": STRIDE * window, **about}


@dataclass(frozen=True)
class VideoClip:
    """A video, with a small copy of its pictures. Models that see need eyes."""

    name: str
    video: Video
    tags: Tags
    preview: Video
    engine: MusicGenEngine
    visual_frontend: Any
    reference: None = None

    @property
    def visual_features(self) -> VisualFeatures:
        return self.video.visual_features()

    def generate(self, model: V2M, options: GenerateOptions) -> Soundtrack:
        player = self.engine.with_decoder(options.decoder)
        if self.visual_frontend is None:
            return player.generate(self.video, self.tags, None, **options.as_kwargs(model))
        from v2m.generators.vidmuse.engine import VideoMusicEngine

        device = next(model.parameters()).device
        return VideoMusicEngine(model, player, self.visual_frontend, device).generate(
            self.video, self.tags, **options.as_kwargs(model)
        )


@dataclass(frozen=True)
class ShardClip:
    """A sample: one row, on the model's device, with the music that it had."""

    name: str
    batch: Batch
    duration: float
    visual_features: VisualFeatures
    engine: MusicGenEngine
    reference: Audio
    preview: None = None

    @torch.inference_mode()
    def generate(self, model: V2M, options: GenerateOptions) -> Soundtrack:
        """A model without nulls has never seen what it would be led away from, so it is not led."""
        told = model.config.uses_text and bool(self.batch.text.mask.any())
        text = model.project_text(self.batch.text) if told else None
        sees, sampling = model.conditioner is not None, options.sampling
        if sees and not model.config.has_null_tokens:
            sampling = replace(sampling, cfg_scale=1.0, video_cfg_scale=None)
        branches = model.cfg_branches(
            sampling, text=text, video=model.encode_video(self.batch.visual) if sees else None
        )
        given: dict[str, Any] = options.as_kwargs(model) | {"sampling": sampling}
        return self.engine.with_decoder(options.decoder).generate_from_branches(
            self.duration, lambda *_: branches, **given
        )


EvalClip = VideoClip | ShardClip


def load_video_clips(
    videos: Sequence[Path], count: int, seconds: float, model: V2M, device: torch.device, *, preview_dir: Path
) -> list[EvalClip]:
    """The first `seconds` of the first `count` videos; their small copies go to the folder `films`.

    Raises:
        DependencyError: The frozen models cannot be had.
        InvalidInputError, UsageError: A video cannot be read.
    """
    from v2m.media import video
    from v2m.media.mux import write_preview
    from v2m.taggers.heuristic import Palette

    player = MusicGenEngine.from_model(model, "the model", device, None)
    eyes = None
    if model.config.conditioner is not None:
        from v2m.generators.vidmuse.visual_frontend import VisualFrontend

        eyes = VisualFrontend.load(model, "the model", device)
    preview_dir.mkdir(parents=True, exist_ok=True)
    found: list[EvalClip] = []
    sources = discover_videos(videos)[:count]
    stems = [source.video.stem for source in sources]
    for source, stem in zip(sources, stems, strict=True):
        name = stem if stems.count(stem) == 1 else source.key
        shown, film = video.open(source.video).crop(0.0, seconds), preview_dir / f"{name}.mp4"
        write_preview(shown, film)
        found.append(VideoClip(name, shown, Palette().tag(shown, Tags()), video.open(film), player, eyes))
    return found


def load_shard_clips(
    loader: ResumableLoader, count: int, seconds: float, model: V2M, device: torch.device
) -> list[EvalClip]:
    """Load the first `count` usable samples of validation, from their start and at most a window long.

    Raises:
        DependencyError: The codec, or a shard, cannot be had.
    """
    manifest = loader.shards.manifest
    player = MusicGenEngine.from_model(model, manifest.codec, device, None, with_text=False)
    collator = CropCollator(manifest, min(seconds, model.config.segment_duration))
    found: list[EvalClip] = []
    for number in range(len(loader.shards)):
        if len(found) == count:
            break
        try:
            clip = collator.crop(decode(loader.shards.read_members(number), manifest), 0.0)
        except CorruptSampleError as error:
            logger.warning("skipped: %s", error)
            continue
        duration = seconds_of(clip.codes.shape[1], manifest.codec_frame_rate)
        batch = collator.collate([clip]).to(device)
        sound = player.decode(batch.codes[..., : clip.codes.shape[1]], sample_count(duration, player.sample_rate))
        seen = picture_of(clip.events, manifest.event_channels, duration)
        found.append(ShardClip(clip.key, batch, duration, seen, player, Audio(sound, player.sample_rate)))
    if not found:
        raise DependencyError("no sample of validation can be used")
    return found
