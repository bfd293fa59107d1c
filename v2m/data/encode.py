"""Encode one video with its music into samples of `v2m.data.schema`, or find the reason to leave it out.

K codebooks, T codec frames, F frames of a segment, P tokens per frame, W their dimension, L text tokens, D their
dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.checkpoints.components import REQUIRED_FILES
from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.prompts import build_prompt
from v2m.core.protocols import Codec, Tagger, TextEncoder, VisionEncoder
from v2m.core.timing import sample_count, seconds_of, step_count, step_times
from v2m.core.types import Audio, Tags, Video
from v2m.data import filters
from v2m.data.config import PrepareConfig
from v2m.data.filters import FilteredOutError
from v2m.data.schema import CODES, EVENTS, FRAMES, LONG_TERM, TEXT, Manifest, Meta
from v2m.data.sources import VideoSource, read_tags
from v2m.media import audio, video
from v2m.media.video import Limits
from v2m.pretrained import weights
from v2m.pretrained.codecs import encodec
from v2m.pretrained.text.t5 import T5TextEncoder
from v2m.pretrained.vision import FrozenVisionEncoder

if TYPE_CHECKING:
    from v2m.pretrained.demucs import Demucs

Arrays = dict[str, np.ndarray]
Sample = tuple[Meta, Arrays]
FRAMES_PER_READ = 256  # bounds the decoded frames in memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleEncoder:
    """The frozen encoders and the config of a dataset."""

    config: PrepareConfig
    vision_encoder: VisionEncoder
    codec: Codec
    text_encoder: TextEncoder
    tagger: Tagger
    separator: Demucs | None = None

    @classmethod
    def load(cls, config: PrepareConfig, tagger: Tagger, device: torch.device) -> SampleEncoder:
        """Load the encoders.

        Raises:
            DependencyError: Weights are missing, broken, or of another kind.
            UsageError: `stereo` is set for a codec that is stereo by itself.
        """
        folders = {kind: fetch_component(name, kind).folder for kind, name in component_names(config).items()}
        vision_encoder = FrozenVisionEncoder.load(
            folders["vision_encoder"],
            device,
            name=config.vision_encoder,
            pooling=config.pooling,
            aspect=config.aspect,
        )
        codec: Codec = encodec.load_encodec(folders["codec"], device)
        if config.stereo and codec.spec.channels != 1:
            raise UsageError(f"the codec {config.codec!r} is stereo by itself: leave out --stereo")
        codec = encodec.InterleavedStereoCodec(codec) if config.stereo else codec
        separator = None
        if "separator" in folders:
            from v2m.pretrained.demucs import Demucs

            separator = Demucs.load(folders["separator"], device)
        text_encoder = T5TextEncoder.load(folders["text_encoder"], device)
        return cls(config, vision_encoder, codec, text_encoder, tagger, separator)

    def manifest(self) -> Manifest:
        """Return the properties that all samples share; no shards yet."""
        spec, config = self.codec.spec, self.config
        return Manifest(
            vision_encoder=self.vision_encoder.name,
            num_tokens=self.vision_encoder.num_tokens,
            vision_dim=self.vision_encoder.dim,
            aspect=self.vision_encoder.aspect,
            video_frame_rate=config.video_frame_rate,
            num_long_term_frames=config.num_long_term_frames,
            event_rate=config.event_rate,
            event_channels=EVENT_CHANNELS,
            codec=config.codec,
            sample_rate=spec.sample_rate,
            codec_frame_rate=spec.frame_rate,
            num_codebooks=spec.num_codebooks,
            codebook_size=spec.codebook_size,
            text_encoder=config.text_encoder,
            text_dim=self.text_encoder.dim,
            tagger=type(self.tagger).__name__,
            channels=2 if config.stereo else 1,
            separator="" if self.separator is None else config.separator,
        )

    def encode(self, source: VideoSource) -> Iterator[Sample]:
        """Yield a sample of each segment. Raise FilteredOutError, before the first, for a video to leave out."""
        config = self.config
        try:
            clip = video.open(source.video, Limits(duration=max(config.max_duration_s, Limits.duration)))
            filters.check_duration(clip.duration, config)
            music = self._load_music(source, clip)
            duration = min(clip.duration, seconds_of(len(music), music.sample_rate))
            filters.check_duration(duration, config)
            filters.check_motion(clip.visual_features(), config)
            tags = self._tag(source, clip)
            long_term = self._encode_frames(clip, step_times(clip.duration, config.num_long_term_frames))
        except InvalidInputError as error:
            raise _as_filtered(error) from error
        prompt = build_prompt(tags)
        text = _to_numpy(self.text_encoder.encode([prompt]))
        segments = filters.split_into_segments(duration, self.codec.spec.frame_rate, config.max_segment_s)
        for number, (start, seconds) in enumerate(segments):
            key = f"{source.key}_{number:04d}"
            meta = Meta(key, source.name, start, seconds, clip.duration, tags.to_dict(), prompt)
            yield meta, self._encode_segment(clip, music, meta) | {LONG_TERM: long_term, TEXT: text}

    def _encode_segment(self, clip: Video, music: Audio, meta: Meta) -> Arrays:
        config, rate = self.config, music.sample_rate
        first = sample_count(meta.start, rate)
        wave = music.samples[:, first : first + sample_count(meta.duration, rate)]
        codes = self.codec.encode(torch.from_numpy(np.ascontiguousarray(wave))[None])[0]  # (K, T)
        try:
            times = meta.start + step_times(meta.duration, step_count(meta.duration, config.video_frame_rate))
            frames = self._encode_frames(clip, times)
        except InvalidInputError as error:
            raise _as_filtered(error) from error
        events = visual_event_features(clip.visual_features(), meta.start, meta.duration, config.event_rate)
        return {CODES: codes.cpu().numpy(), FRAMES: frames, EVENTS: events}

    def _encode_frames(self, clip: Video, times: np.ndarray) -> np.ndarray:
        """Return the tokens (F, P, W) of the frames shown at `times`."""
        width = self.vision_encoder.decode_width(clip.width, clip.height)
        parts = [times[start : start + FRAMES_PER_READ] for start in range(0, len(times), FRAMES_PER_READ)]
        tokens = [self.vision_encoder.encode(clip.frames(part.tolist(), width)).cpu().numpy() for part in parts]
        return np.concatenate(tokens)

    def _load_music(self, source: VideoSource, clip: Video) -> Audio:
        """Return the music from the first frame on, at the codec's rate and channels; `vocals` may remove voices."""
        spec, separator = self.codec.spec, self.separator
        rate = spec.sample_rate if separator is None else separator.sample_rate
        music = self._load_audio(source, clip, rate)
        if separator is not None:
            filters.check_silence(music.samples, rate, self.config)
            music = audio.resample(separator.extract_stems(music, separator.non_vocal_stems), spec.sample_rate)
        wave = music.samples.mean(axis=0, keepdims=True) if spec.channels == 1 else music.samples
        filters.check_silence(wave, spec.sample_rate, self.config)
        return Audio(wave, spec.sample_rate)

    def _load_audio(self, source: VideoSource, clip: Video, rate: int) -> Audio:
        """Return the audio of the video or of the file beside it, in stereo."""
        seconds = clip.duration
        if source.audio is not None:
            try:
                max_seconds = 1 + seconds / max(self.config.min_overlap, 0.01)
                sound = audio.load(source.audio, rate, max_seconds)
            except UsageError as error:
                raise FilteredOutError("silent" if "is silent" in str(error) else "unreadable", str(error)) from error
            filters.check_overlap(seconds, seconds_of(len(sound), rate), self.config)
            return Audio(sound.samples[:, : sample_count(seconds, rate)], rate)
        if not clip.audio_streams:
            raise FilteredOutError("no_sound", "it has no sound, nor is there a file of the same name with it")
        return _video_audio(clip, rate, self.config)

    def _tag(self, source: VideoSource, clip: Video) -> Tags:
        known = Tags() if source.tags is None else Tags(**read_tags(source.tags))
        return known if known.is_complete else self.tagger.tag(clip, known).overridden_by(known)


def component_names(config: PrepareConfig) -> dict[str, str]:
    """Return the names of the models to fetch, by kind of component."""
    names = {"vision_encoder": config.vision_encoder, "codec": config.codec, "text_encoder": config.text_encoder}
    return names | ({"separator": config.separator} if config.vocals == "remove" else {})


def fetch_component(name: str, kind: str) -> weights.WeightsInfo:
    """Return the folder of the model, downloaded if it must be. Raise DependencyError."""
    if kind == "separator":
        from v2m.pretrained import demucs

        return demucs.fetch(name)
    return weights.fetch(name, REQUIRED_FILES[kind])


def _as_filtered(error: InvalidInputError) -> FilteredOutError:
    return FilteredOutError(error.reason if error.reason == "too_long" else "unreadable", f"{error.reason}: {error}")


def _video_audio(clip: Video, sample_rate: int, config: PrepareConfig) -> Audio:
    from av.error import FFmpegError

    track = clip.audio_streams[0]
    try:
        sound, _ = audio.original_audio(clip, sample_rate)
    except (FFmpegError, OSError) as error:
        raise FilteredOutError("unreadable", f"its sound cannot be read ({error.strerror or error})") from error
    if track.duration is None or track.duration >= clip.duration:
        return sound
    filters.check_overlap(clip.duration, track.duration, config)
    return Audio(sound.samples[:, : sample_count(track.duration, sample_rate)], sample_rate)


def _to_numpy(condition: Any) -> np.ndarray:
    """Return the valid tokens (L, D) of a condition of one text."""
    return condition.tokens[0][condition.mask[0]].cpu().numpy()
