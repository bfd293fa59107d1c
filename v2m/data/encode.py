"""Samples of `v2m.data.schema` from a video with music, or music alone, or why it is left out.

C channels, N audio samples, K codebooks, T codec frames, F frames of a segment, P tokens per frame, W their dimension,
L text tokens, D their dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from av.error import FFmpegError
from numpy.typing import NDArray

from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.checkpoints.codec import load_codec
from v2m.checkpoints.components import REQUIRED_FILES, Component
from v2m.checkpoints.encoders import load_text_encoder, load_vision_encoder
from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.prompts import build_prompt
from v2m.core.protocols import Codec, Tagger, TextEncoder, VisionEncoder
from v2m.core.timing import codec_frames, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, Tags, Video, VisualFeatures
from v2m.data.config import PrepareConfig
from v2m.data.music_curves import score_curves, sound_curves
from v2m.data.music_tags import score_tags, sound_tags
from v2m.data.pseudo_video import make_pseudo_video
from v2m.data.schema import CODES, EVENTS, FRAMES, LONG_TERM, TEXT, Manifest, Meta
from v2m.data.sources import MusicSource, VideoSource, read_tags
from v2m.data.writer import Arrays, EncodedSample
from v2m.media import audio, video
from v2m.media.video import Limits
from v2m.pretrained import weights
from v2m.pretrained.codecs.base import InterleavedStereoCodec
from v2m.pretrained.codecs.score import ScoreCodec
from v2m.pretrained.frame_times import long_term_frame_times, window_frame_times
from v2m.sketch.notation.midi_file import read_midi, read_programs
from v2m.sketch.notation.score import Score

if TYPE_CHECKING:
    from v2m.pretrained.demucs import Demucs

BLOCK_S = 0.1  # duration of a block of audio that is silent or not
SILENCE_RMS = 1e-3  # −60 dBFS
MIN_BRIGHTNESS_RANGE = 0.02  # that a still image does not reach
FRAMES_PER_READ = 256  # bounds the decoded frames in memory


EncodeMusic = Callable[[Meta], torch.Tensor]  # a segment → codes (K, T)


class FilteredOutError(Exception):
    """A video that is left out; the manifest counts `reason`, a stable word such as too_short."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


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
        """Load the encoders. Raise DependencyError, or UsageError for what the codec cannot do."""
        folders = {kind: fetch_component(name, kind).folder for kind, name in component_names(config).items()}
        vision_encoder = load_vision_encoder(
            Component(config.vision_encoder, folders.get("vision_encoder")), device,
            name=config.vision_encoder, pooling=config.pooling, aspect=config.aspect,
        )  # fmt: skip
        codec = load_codec(Component(config.codec, folders.get("codec")), device)
        if isinstance(codec, ScoreCodec) and config.vocals == "remove":
            raise UsageError("scores have no voices to remove: leave out `vocals`")
        if config.stereo and codec.spec.channels != 1:
            raise UsageError(f"the codec {config.codec!r} is stereo by itself: leave out `stereo`")
        codec = InterleavedStereoCodec(codec) if config.stereo else codec
        separator = None
        if "separator" in folders:
            from v2m.pretrained.demucs import Demucs

            separator = Demucs.load(folders["separator"], device)
        text_encoder = load_text_encoder(Component(config.text_encoder, folders.get("text_encoder")), device)
        return cls(config, vision_encoder, codec, text_encoder, tagger, separator)

    def manifest(self) -> Manifest:
        """Return the properties that all samples share; no shards yet."""
        spec, config, vision = self.codec.spec, self.config, self.vision_encoder
        return Manifest(
            vision_encoder=vision.name,
            num_tokens=vision.num_tokens,
            vision_dim=vision.dim,
            aspect=vision.aspect,
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
            tagger="" if config.unpaired else type(self.tagger).__name__,
            channels=2 if config.stereo else 1,
            separator="" if self.separator is None else config.separator,
            unpaired=config.unpaired,
        )

    def encode(self, source: VideoSource | MusicSource) -> Iterator[EncodedSample]:
        """Yield a sample of each segment. Raise FilteredOutError, before the first, for a video to leave out."""
        config = self.config
        try:
            clip, duration, tags, encode_music = (
                self._open_music(source) if isinstance(source, MusicSource) else self._open_video(source)
            )
            times = long_term_frame_times(clip, self.vision_encoder.aspect, config.num_long_term_frames)
            long_term = self._encode_frames(clip, times)
        except InvalidInputError as error:
            raise _as_filtered(error) from error
        prompt = build_prompt(tags)
        encoded = self.text_encoder.encode([prompt])
        text = encoded.tokens[0][encoded.mask[0]].cpu().numpy()  # (L, D)
        segments = split_into_segments(duration, self.codec.spec.frame_rate, config.max_segment_s)
        for number, (start, seconds) in enumerate(segments):
            key = f"{source.key}_{number:04d}"
            meta = Meta(key, source.name, start, seconds, clip.duration, tags.to_dict(), prompt)
            yield meta, self._encode_segment(clip, encode_music, meta) | {LONG_TERM: long_term, TEXT: text}

    def _open_video(self, source: VideoSource) -> tuple[Video, float, Tags, EncodeMusic]:
        """Return the video, its seconds with music, the tags, and the encoder of its segments' music."""
        config = self.config
        clip = video.open(source.video, Limits(duration=max(config.max_duration_s, Limits.duration)))
        check_duration(clip.duration, config)
        if isinstance(self.codec, ScoreCodec):
            duration, encode_music = clip.duration, self._score_encoder(self.codec, self._load_score(source, clip))
        else:
            music = self._prepare_music(lambda rate: self._load_audio(source, clip, rate))
            duration = min(clip.duration, samples_to_seconds(len(music), music.sample_rate))
            encode_music = self._sound_encoder(music)
        check_duration(duration, config)
        check_motion(clip.visual_features(), config)
        return clip, duration, self._tag(source, clip), encode_music

    def _open_music(self, source: MusicSource) -> tuple[Video, float, Tags, EncodeMusic]:
        """Return the same of music without video."""
        known = Tags() if source.tags is None else Tags(**read_tags(source.tags))
        if isinstance(self.codec, ScoreCodec):
            path = require_file(source.score, "no_score", "it is no MIDI file, nor is one of the same name beside it")
            score = read_midi(path)
            check_duration(score.duration, self.config)
            curves, encode_music = score_curves(score), self._score_encoder(self.codec, score)
            tags = score_tags(score, read_programs(path))
        else:
            path = require_file(source.audio, "no_sound", "it is no sound file, nor is one of the same name beside it")
            music = self._prepare_music(lambda rate: load_file(path, rate, 1 + self.config.max_duration_s))
            seconds = samples_to_seconds(len(music), music.sample_rate)
            check_duration(seconds, self.config)
            tags, encode_music = sound_tags(music), self._sound_encoder(music)
            curves = sound_curves(music, known.tempo or tags.tempo, seconds)
        clip = make_pseudo_video(curves, [*hashlib.sha256(path.read_bytes()).digest()], path)
        return clip, clip.duration, tags.overridden_by(known), encode_music

    def _score_encoder(self, codec: ScoreCodec, score: Score) -> EncodeMusic:
        """Return the encoder of a score's segments; their tags name the key, for codes relative to it."""
        rate = codec.spec.frame_rate
        encode = cache(lambda key: codec.encode(score, Tags(key=key))[0])

        def cut_codes(meta: Meta) -> torch.Tensor:
            first = codec_frames(meta.start, rate)
            return encode(meta.tags.get("key"))[:, first : first + codec_frames(meta.duration, rate)]

        return cut_codes

    def _sound_encoder(self, music: Audio) -> EncodeMusic:
        rate = music.sample_rate

        def encode_sound(meta: Meta) -> torch.Tensor:
            first = seconds_to_samples(meta.start, rate)
            wave = music.samples[:, first : first + seconds_to_samples(meta.duration, rate)]
            return self.codec.encode(torch.from_numpy(np.ascontiguousarray(wave))[None])[0]

        return encode_sound

    def _load_score(self, source: VideoSource, clip: Video) -> Score:
        """Return the score of the MIDI file beside the video, as long as the video."""
        path = require_file(source.score, "no_score", "there is no MIDI file of the same name beside it")
        check_overlap(clip.duration, read_midi(path).duration, self.config)
        return read_midi(path, clip.duration)

    def _encode_segment(self, clip: Video, encode_music: EncodeMusic, meta: Meta) -> Arrays:
        config, codes = self.config, encode_music(meta)  # (K, T)
        aspect, frame_rate = self.vision_encoder.aspect, config.video_frame_rate
        times = window_frame_times(clip, aspect, meta.start, meta.duration, frame_rate)
        try:
            frames = self._encode_frames(clip, times)
        except InvalidInputError as error:
            raise _as_filtered(error) from error
        events = visual_event_features(clip.visual_features(), meta.start, meta.duration, config.event_rate)
        return {CODES: codes.cpu().numpy(), FRAMES: frames, EVENTS: events}

    def _encode_frames(self, clip: Video, times: np.ndarray) -> np.ndarray:
        """Return the tokens (F, P, W) of the frames shown at `times`."""
        encoder = self.vision_encoder
        width = encoder.decode_width(clip.width, clip.height)
        parts = [times[start : start + FRAMES_PER_READ] for start in range(0, len(times), FRAMES_PER_READ)]
        frames = (clip.frames(part.tolist(), width, encoder.convert) for part in parts)
        return np.concatenate([encoder.encode(images).cpu().numpy() for images in frames])

    def _prepare_music(self, load: Callable[[int], Audio]) -> Audio:
        """Return the music that `load` reads at a rate, as the codec takes it, maybe without voices."""
        spec, separator = self.codec.spec, self.separator
        rate = spec.sample_rate if separator is None else separator.sample_rate
        music = load(rate)
        if separator is not None:
            check_silence(music.samples, rate, self.config)
            music = audio.resample(separator.extract_stems(music, separator.non_vocal_stems), spec.sample_rate)
        wave = music.samples.mean(axis=0, keepdims=True) if spec.channels == 1 else music.samples
        check_silence(wave, spec.sample_rate, self.config)
        return Audio(wave, spec.sample_rate)

    def _load_audio(self, source: VideoSource, clip: Video, rate: int) -> Audio:
        """Return the audio of the video or of the file beside it, from the first frame on, in stereo."""
        seconds = clip.duration
        if source.audio is not None:
            sound = load_file(source.audio, rate, 1 + seconds / max(self.config.min_overlap, 0.01))
            check_overlap(seconds, samples_to_seconds(len(sound), rate), self.config)
            return Audio(sound.samples[:, : seconds_to_samples(seconds, rate)], rate)
        track = clip.audio_track()
        if track is None:
            raise FilteredOutError("no_sound", "it has no sound, nor is there a file of the same name with it")
        try:
            sound, _ = audio.original_audio(clip, rate)
        except (FFmpegError, OSError) as error:
            raise FilteredOutError("unreadable", f"its sound cannot be read ({error.strerror or error})") from error
        if track.duration is None or track.duration >= seconds:
            return sound
        check_overlap(seconds, track.duration, self.config)
        return Audio(sound.samples[:, : seconds_to_samples(track.duration, rate)], rate)

    def _tag(self, source: VideoSource, clip: Video) -> Tags:
        known = Tags() if source.tags is None else Tags(**read_tags(source.tags))
        return known if known.is_complete else self.tagger.tag(clip, known).overridden_by(known)


def component_names(config: PrepareConfig) -> dict[str, str]:
    """Return the models that have to be fetched."""
    names = {"vision_encoder": config.vision_encoder, "codec": config.codec, "text_encoder": config.text_encoder}
    names = {kind: name for kind, name in names.items() if not Component(name).is_built_in}
    return names | ({"separator": config.separator} if config.vocals == "remove" else {})


def fetch_component(name: str, kind: str) -> weights.WeightsInfo:
    """Return the folder of the model, downloaded if it must be. Raise DependencyError."""
    if kind == "separator":
        from v2m.pretrained import demucs

        return demucs.fetch(name)
    return weights.fetch(name, REQUIRED_FILES[kind])


def require_file(path: Path | None, reason: str, detail: str) -> Path:
    """Return `path`. Raise FilteredOutError where there is none."""
    if path is None:
        raise FilteredOutError(reason, detail)
    return path


def load_file(path: Path, rate: int, max_seconds: float) -> Audio:
    """Read a sound file in stereo. Raise FilteredOutError where it is silent or unreadable."""
    try:
        return audio.load(path, rate, max_seconds)
    except UsageError as error:
        reason = "silent" if isinstance(error, audio.SilentAudioError) else "unreadable"
        raise FilteredOutError(reason, str(error)) from error


def _as_filtered(error: InvalidInputError) -> FilteredOutError:
    return FilteredOutError(error.reason if error.reason == "too_long" else "unreadable", f"{error.reason}: {error}")


def check_duration(seconds: float, config: PrepareConfig) -> None:
    if seconds < config.min_duration_s:
        raise FilteredOutError("too_short", f"{seconds:.2f} s, less than {config.min_duration_s:g} s")
    if seconds > config.max_duration_s:
        raise FilteredOutError("too_long", f"{seconds:.0f} s, more than {config.max_duration_s:g} s")


def check_overlap(video_seconds: float, audio_seconds: float, config: PrepareConfig) -> None:
    if min(video_seconds, audio_seconds) < config.min_overlap * max(video_seconds, audio_seconds):
        raise FilteredOutError("lengths_differ", f"{video_seconds:.2f} s of video, {audio_seconds:.2f} s of audio")


def check_silence(wave: NDArray[np.float32], sample_rate: int, config: PrepareConfig) -> None:
    """Raise FilteredOutError where too large a share of audio (C, N) is silent."""
    block_size = seconds_to_samples(BLOCK_S, sample_rate)
    peaks = np.abs(wave).max(axis=0)
    blocks = np.pad(peaks, (0, -len(peaks) % block_size)).reshape(-1, block_size)
    silence = float((np.sqrt(np.square(blocks).mean(axis=1)) < SILENCE_RMS).mean())
    if silence > config.max_silence or silence == 1:
        raise FilteredOutError("silent", f"{silence:.0%} of the audio is silent")


def check_motion(features: VisualFeatures, config: PrepareConfig) -> None:
    """Raise FilteredOutError for a still image: no cut, no motion, no change of brightness."""
    motion = float(np.quantile(features.motion, 0.95))
    if not features.cuts and motion < config.min_motion and np.ptp(features.brightness) < MIN_BRIGHTNESS_RANGE:
        raise FilteredOutError("static", f"no cut, and at most {motion:.4f} of motion")


def split_into_segments(seconds: float, frame_rate: int, max_segment_s: float) -> list[tuple[float, float]]:
    """Return (start, duration) of even segments up to `max_segment_s`, of complete codec frames."""
    total = codec_frames(seconds, frame_rate)
    total -= samples_to_seconds(total, frame_rate) > seconds + 1e-6
    count = -(-total // codec_frames(max_segment_s, frame_rate))
    edges = [total * number // count for number in range(count + 1)]
    return [(samples_to_seconds(a, frame_rate), samples_to_seconds(b - a, frame_rate)) for a, b in pairwise(edges)]
