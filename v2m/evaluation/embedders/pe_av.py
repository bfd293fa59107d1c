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

from v2m.core.errors import DependencyError
from v2m.core.timing import sample_count
from v2m.core.types import Audio, Floats, Video
from v2m.evaluation.embedder import Heard, mono, spans, windows
from v2m.evaluation.embedders.base import CPU, Pretrained, array, exact, extractor, heard
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
WINDOW = 10.0  # seconds
_TIED: Any = PeAudioVideoModel._tied_weights_keys
_ROTARY = r"rope\.pos_embed", r"rope\."
FRAMES = 16  # of a window, of which the models called 16-frame are shown as many


class _Model(PeAudioVideoModel):
    """Without tying what current releases of timm keep of a rotary embedding beside `pos_embed`, and is no weight."""

    _tied_weights_keys = {  # noqa: RUF012 - transformers' own
        name.replace(*_ROTARY): value.replace(*_ROTARY) for name, value in _TIED.items()
    }


class PeAv(Pretrained):
    """Hears and watches."""

    files, license = FILES, LICENSE
    cure = "take a smaller pe-av=REPOSITORY"

    def __init__(self, source: str = "facebook/pe-av-small-16-frame", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def hear(self, audio: Audio) -> Heard:
        """(W, D)"""
        with self._held.model() as (model, prepared, _):
            rate, found = prepared.sampling_rate, []
            for piece in windows(mono(resample(audio, rate)), sample_count(WINDOW, rate)):
                filled = np.pad(piece, (0, max(0, prepared.hop_length - len(piece))))
                given = prepared(filled, sampling_rate=rate, return_tensors="pt")["input_values"]
                tower = model.audio_model
                state = tower.audio_encoder(input_values=given.to(model.device)).pooler_output
                found.append(array(tower.audio_head(state)))
            return heard(np.concatenate(found), self.name)

    @torch.inference_mode()
    def watch(self, video: Video) -> Floats:
        """(W, D) of the same seconds; of each, frames at equal distances from its first to its last."""
        with self._held.model() as (model, _, shown):
            found = []
            for begin, end in spans(video.duration, WINDOW):
                last = max(begin, end - 1 / max(video.fps, 1.0))
                frames = video.frames(np.linspace(begin, last, FRAMES).tolist(), _width(video, shown))
                pixels = torch.as_tensor(frames).permute(0, 3, 1, 2)  # (F, 3, H, W)
                given = shown([pixels], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
                tower = model.video_model
                state = tower.video_encoder(pixel_values_videos=given.to(model.device)).pooler_output
                found.append(array(tower.video_head(state)))
            return heard(np.concatenate(found), self.name).windows

    def _load(self, folder: Path) -> tuple[Any, Any, Any]:
        if not _timm():
            raise DependencyError("PE-AV needs the package timm: `uv sync`, or `pip install timm`")
        with contextlib.redirect_stdout(io.StringIO()):  # to which transformers writes of its own docstrings
            model = exact(transformers_loader.load_model(_Model, folder, CPU, description="PE-AV"), self._device)
        sound = extractor(PeAudioFeatureExtractor, folder, "PE-AV")
        return model, sound, extractor(PeVideoVideoProcessor, folder, "PE-AV")


def _timm() -> bool:
    from transformers.utils.import_utils import is_timm_available

    return is_timm_available()


def _width(video: Video, shown: Any) -> int | None:
    """How wide frames should be read: no larger than is needed."""
    size = shown.size or {}
    side = size.get("shortest_edge") or size.get("height")
    return side and min(video.width, max(1, round(video.width * side / min(video.width, video.height))))
