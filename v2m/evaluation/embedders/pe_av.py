"""The Perception Encoder for sound and pictures, whose embeddings are near each other where they belong together.

Of facebook/pe-av-*, as transformers has it. W windows of at most 10 s, D numbers, F frames.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PeAudioFeatureExtractor, PeAudioVideoModel, PeVideoVideoProcessor

from v2m.core import extras
from v2m.core.timing import sample_count
from v2m.core.types import Audio, Floats, Video
from v2m.evaluation.embedder import AudioEmbedding, split_windows, to_mono, window_times
from v2m.evaluation.embedders.base import CPU, HFEmbedder, load_extractor, to_audio_embedding, to_float32, to_numpy
from v2m.media.audio import resample
from v2m.pretrained import transformers_loader

FILES = (
    "config.json",
    "model.safetensors|model*.safetensors",
    "model.safetensors.index.json|",
    "preprocessor_config.json|processor_config.json",
    "video_preprocessor_config.json|processor_config.json",
)
LICENSE = "apache-2.0"
WINDOW_S = 10.0  # seconds
_TIED: Any = PeAudioVideoModel._tied_weights_keys
_ROTARY = r"rope\.pos_embed", r"rope\."
FRAMES_PER_WINDOW = 16  # of a window, of which the models called 16-frame are shown as many


class _Model(PeAudioVideoModel):
    """Without tying what current releases of timm keep of a rotary embedding beside `pos_embed`, and is no weight."""

    _tied_weights_keys = {  # noqa: RUF012 - transformers' own
        name.replace(*_ROTARY): value.replace(*_ROTARY) for name, value in _TIED.items()
    }


class PeAvEmbedder(HFEmbedder):
    """Hears and watches."""

    files, license = FILES, LICENSE
    cure = "take a smaller pe-av=REPOSITORY"

    def __init__(self, source: str = "facebook/pe-av-small-16-frame", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, D)"""
        with self._lazy_model.model() as (model, prepared, _):
            rate, found = prepared.sampling_rate, []
            for piece in split_windows(to_mono(resample(audio, rate)), sample_count(WINDOW_S, rate)):
                filled = np.pad(piece, (0, max(0, prepared.hop_length - len(piece))))
                given = prepared(filled, sampling_rate=rate, return_tensors="pt")["input_values"]
                tower = model.audio_model
                state = tower.audio_encoder(input_values=given.to(model.device)).pooler_output
                found.append(to_numpy(tower.audio_head(state)))
            return to_audio_embedding(np.concatenate(found), self.name)

    @torch.inference_mode()
    def embed_video(self, video: Video) -> Floats:
        """(W, D) of the same seconds; of each, frames at equal distances from its first to its last."""
        with self._lazy_model.model() as (model, _, shown):
            found = []
            for begin, end in window_times(video.duration, WINDOW_S):
                last = max(begin, end - 1 / max(video.fps, 1.0))
                frames = video.frames(np.linspace(begin, last, FRAMES_PER_WINDOW).tolist(), _frame_width(video, shown))
                pixels = torch.as_tensor(frames).permute(0, 3, 1, 2)  # (F, 3, H, W)
                given = shown([pixels], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
                tower = model.video_model
                state = tower.video_encoder(pixel_values_videos=given.to(model.device)).pooler_output
                found.append(to_numpy(tower.video_head(state)))
            return to_audio_embedding(np.concatenate(found), self.name).embeddings

    def _load(self, folder: Path) -> tuple[Any, Any, Any]:
        extras.require("timm")  # which transformers would only miss inside
        with contextlib.redirect_stdout(io.StringIO()):  # to which transformers writes of its own docstrings
            model = to_float32(transformers_loader.load_model(_Model, folder, CPU, description="PE-AV"), self._device)
        sound = load_extractor(PeAudioFeatureExtractor, folder, "PE-AV")
        return model, sound, load_extractor(PeVideoVideoProcessor, folder, "PE-AV")


def _frame_width(video: Video, shown: Any) -> int | None:
    """How wide frames should be read: no larger than is needed."""
    size = shown.size or {}
    side = size.get("shortest_edge") or size.get("height")
    return side and min(video.width, max(1, round(video.width * side / min(video.width, video.height))))
