"""ImageBind's sound and pictures, for whoever has its package: it is not among those of v2m, and neither it nor its
weights may be used commercially (CC-BY-NC-4.0).

Girdhar et al., "ImageBind: One Embedding Space To Bind Them All" (2023). W windows of 2 s, D numbers. It hears and
sees all of a piece, window by window; its own examples take three windows of sound and five of pictures.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchaudio.compliance.kaldi import fbank

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.timing import sample_count
from v2m.core.types import Audio, Floats, Video
from v2m.evaluation.embedder import AudioEmbedding, split_windows, to_mono, window_times
from v2m.evaluation.embedders.base import BATCH_SIZE, to_audio_embedding, to_numpy
from v2m.media.audio import resample
from v2m.pretrained import weights
from v2m.pretrained.file_patterns import checkpoint_folders
from v2m.pretrained.safe_load import load_strict, read_tensors

WEIGHTS_FILE = "imagebind_huge.pth"
WINDOW_S, FRAMES_PER_WINDOW, SIDE = 2.0, 2, 224  # seconds, frames and pixels of a window
SAMPLE_RATE, NUM_MELS, NUM_FRAMES, MEAN, DEVIATION = 16_000, 128, 204, -4.268, 9.138  # of the spectrogram
PIXEL_MEAN_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageBindEmbedder:
    """Weights load on first use.

    Args:
        source: A folder with imagebind_huge.pth; or its name in `checkpoints/`.
        device: As `choose_device` takes it.
    """

    def __init__(self, source: str = "imagebind", device: str = "auto") -> None:
        self.name, self._source, self._device = Path(source).name, source, device
        self._lazy_model: LazyModel[Any] = LazyModel(self._load, "measure fewer things at a time")

    def prepare(self) -> None:
        """Raises DependencyError where the package or the weights are not here."""
        _import_package()
        self._weights_folder()

    def release(self) -> None:
        self._lazy_model.release()

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, D)"""
        with self._lazy_model.model() as (model, device):
            pieces = split_windows(to_mono(resample(audio, SAMPLE_RATE)), sample_count(WINDOW_S, SAMPLE_RATE))
            spectra = torch.stack([_spectrogram(torch.as_tensor(np.array(each))) for each in pieces])[:, None, None]
            found = [to_numpy(model({"audio": part.to(device)})["audio"]) for part in spectra.split(BATCH_SIZE)]
            return to_audio_embedding(np.concatenate(found), self.name)

    @torch.inference_mode()
    def embed_video(self, video: Video) -> Floats:
        """(W, D) of the middle of two frames a window."""
        with self._lazy_model.model() as (model, device):
            found = []
            for begin, end in window_times(video.duration, WINDOW_S):
                times = np.linspace(begin, max(begin, end - 1 / max(video.fps, 1.0)), FRAMES_PER_WINDOW).tolist()
                given = _pixels(torch.as_tensor(video.frames(times))).transpose(0, 1)[None, None]  # (1, 1, 3, F, S, S)
                found.append(to_numpy(model({"vision": given.to(device)})["vision"]))
            return to_audio_embedding(np.concatenate(found), self.name).embeddings

    def _weights_folder(self) -> Path:
        where = f"put {WEIGHTS_FILE} into {checkpoint_folders()[0] / 'imagebind'}, or give imagebind=FOLDER"
        try:
            found = weights.find_local(self._source, [WEIGHTS_FILE])
        except DependencyError as error:
            raise DependencyError(f"ImageBind's weights are not in {self._source!r}: {where}") from error
        if found is None:
            raise DependencyError(f"ImageBind is in no repository that is known: {where}")
        return found.folder

    def _load(self) -> Any:
        model, device = _import_package().imagebind_huge(pretrained=False), choose_device(self._device)
        load_strict(model, read_tensors(self._weights_folder() / WEIGHTS_FILE), "ImageBind", assign=True)
        return model.eval().requires_grad_(False).to(device), device


def _import_package() -> Any:
    """The package's module with the model, without its readers of videos, which current releases of torchvision broke.

    Raises DependencyError where it or what it imports is not installed.
    """
    spec = importlib.util.find_spec("imagebind")
    if spec is None:
        raise DependencyError(
            "ImageBind needs its package, which is not for commercial use: install imagebind from its repository "
            "(facebookresearch/ImageBind), or take pe-av"
        )
    sys.modules.setdefault("imagebind", importlib.util.module_from_spec(spec))
    try:
        return importlib.import_module("imagebind.models.imagebind_model")
    except ImportError as error:
        raise DependencyError(f"ImageBind's package needs {error.name}, too: `pip install {error.name}`") from error


def _spectrogram(samples: Tensor) -> Tensor:
    """(N,) → (128, 204)"""
    least = SAMPLE_RATE // 40  # of a frame
    samples = pad(samples, (0, max(0, least - len(samples))))
    how: dict[str, Any] = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "dither": 0.0}
    found = fbank((samples - samples.mean())[None], sample_frequency=SAMPLE_RATE, num_mel_bins=NUM_MELS, **how).T
    return (pad(found, (0, max(0, NUM_FRAMES - found.shape[1])))[:, :NUM_FRAMES] - MEAN) / DEVIATION


def _pixels(frames: Tensor) -> Tensor:
    """(F, H, W, 3) uint8 → (F, 3, 224, 224), the middle, as its short side is made that long."""
    x = frames.permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[2:]
    scale = SIDE / min(height, width)
    high, wide = max(SIDE, round(height * scale)), max(SIDE, round(width * scale))
    x = interpolate(x, (high, wide), mode="bilinear", align_corners=False, antialias=True)
    top, left = (high - SIDE) // 2, (wide - SIDE) // 2
    mean, deviation = (torch.tensor(each)[:, None, None] for each in PIXEL_MEAN_STD)
    return (x[..., top : top + SIDE, left : left + SIDE] - mean) / deviation
