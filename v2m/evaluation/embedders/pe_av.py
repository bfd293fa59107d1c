"""The Perception Encoder Audiovisual: audio and video in one space.

The checkpoints facebook/pe-av-* in transformers' layout. W windows of at most 10 s, D dimensions, F frames.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from transformers import PeAudioFeatureExtractor, PeAudioVideoModel, PeVideoVideoProcessor

from v2m.core import errors
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Floats, Video
from v2m.evaluation.embedders import AudioEmbedding, pretrained, split_windows, to_mono, window_times
from v2m.evaluation.embedders.pretrained import HFEmbedder, to_numpy
from v2m.media.audio import resample
from v2m.pretrained import transformers_loader

WINDOW_S = 10.0
FRAMES_PER_WINDOW = 16  # as the checkpoints named 16-frame were trained
_TIED: Any = PeAudioVideoModel._tied_weights_keys
_ROTARY = r"rope\.pos_embed", r"rope\."


class _Model(PeAudioVideoModel):
    """PE-AV without the tied keys of a rotary buffer, which timm keeps and which is no weight."""

    _tied_weights_keys = {  # noqa: RUF012 - transformers' own
        name.replace(*_ROTARY): value.replace(*_ROTARY) for name, value in _TIED.items()
    }


class PeAvEmbedder(HFEmbedder):
    """PE-AV's embeddings of audio and video."""

    files = (
        "config.json",
        "model.safetensors|model*.safetensors",
        "model.safetensors.index.json|",
        "preprocessor_config.json|processor_config.json",
        "video_preprocessor_config.json|processor_config.json",
    )
    license = "apache-2.0"
    oom_hint = "take a smaller pe-av=REPOSITORY"
    embeds_video = True

    def __init__(self, source: str = "facebook/pe-av-small-16-frame", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, D)."""
        with self._lazy_model.model() as (model, extractor, _):
            rate, embeddings = extractor.sampling_rate, []
            tower = model.audio_model
            for window in split_windows(to_mono(resample(audio, rate)), seconds_to_samples(WINDOW_S, rate)):
                padded = np.pad(window, (0, max(0, extractor.hop_length - len(window))))
                inputs = extractor(padded, sampling_rate=rate, return_tensors="pt")["input_values"]
                state = tower.audio_encoder(input_values=inputs.to(model.device)).pooler_output
                embeddings.append(to_numpy(tower.audio_head(state)))
            return pretrained.join_batches(embeddings, self.name)

    @torch.inference_mode()
    def embed_video(self, video: Video) -> Floats:
        """Embed (W, D) the windows of the audio, each from evenly spaced frames from its first to its last."""
        with self._lazy_model.model() as (model, _, processor):
            embeddings = []
            tower = model.video_model
            for start, end in window_times(video.duration, WINDOW_S):
                last = max(start, end - 1 / max(video.fps, 1.0))
                times = np.linspace(start, last, FRAMES_PER_WINDOW).tolist()
                frames = video.frames(times, _frame_width(video, processor))
                pixels = torch.as_tensor(frames).permute(0, 3, 1, 2)  # (F, 3, H, W)
                inputs = processor([pixels], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
                state = tower.video_encoder(pixel_values_videos=inputs.to(model.device)).pooler_output
                embeddings.append(to_numpy(tower.video_head(state)))
            return pretrained.join_batches(embeddings, self.name).embeddings

    def _load(self) -> tuple[Any, Any, Any]:
        folder = self._weights_folder()
        errors.require_packages("timm")  # whose absence transformers reports only inside
        with contextlib.redirect_stdout(io.StringIO()):  # transformers prints about its own docstrings
            model = transformers_loader.load_model(_Model, folder, pretrained.CPU, description="PE-AV")
        extractor = pretrained.load_extractor(PeAudioFeatureExtractor, folder, "PE-AV")
        processor = pretrained.load_extractor(PeVideoVideoProcessor, folder, "PE-AV")
        return self._place(model), extractor, processor


def _frame_width(video: Video, processor: Any) -> int | None:
    """Return the width at which to read frames, no larger than the model needs."""
    size = processor.size or {}
    side = size.get("shortest_edge") or size.get("height")
    return side and min(video.width, max(1, round(video.width * side / min(video.width, video.height))))
