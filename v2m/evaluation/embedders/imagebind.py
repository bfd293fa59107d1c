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
from v2m.evaluation.embedder import Heard, mono, spans, windows
from v2m.evaluation.embedders.base import BATCH, array, heard
from v2m.media.audio import resample
from v2m.pretrained import weights
from v2m.pretrained.file_patterns import checkpoint_folders
from v2m.pretrained.safe_load import load_strict, read_tensors

FILE = "imagebind_huge.pth"
WINDOW, FRAMES, SIDE = 2.0, 2, 224  # seconds, frames and pixels of a window
RATE, BANDS, LONG, MEAN, DEVIATION = 16_000, 128, 204, -4.268, 9.138  # of the spectrogram
COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageBind:
    """Weights load on first use.

    Args:
        source: A folder with imagebind_huge.pth; or its name in `checkpoints/`.
        device: As `choose_device` takes it.
    """

    def __init__(self, source: str = "imagebind", device: str = "auto") -> None:
        self.name, self._source, self._device = Path(source).name, source, device
        self._held: LazyModel[Any] = LazyModel(self._load, "measure fewer things at a time")

    def prepare(self) -> None:
        """Raises MissingError where the package or the weights are not here."""
        _package()
        self._folder()

    def release(self) -> None:
        self._held.release()

    @torch.inference_mode()
    def hear(self, audio: Audio) -> Heard:
        """(W, D)"""
        with self._held.model() as (model, device):
            pieces = windows(mono(resample(audio, RATE)), sample_count(WINDOW, RATE))
            spectra = torch.stack([_spectrogram(torch.as_tensor(np.array(each))) for each in pieces])[:, None, None]
            found = [array(model({"audio": part.to(device)})["audio"]) for part in spectra.split(BATCH)]
            return heard(np.concatenate(found), self.name)

    @torch.inference_mode()
    def watch(self, video: Video) -> Floats:
        """(W, D) of the middle of two frames a window."""
        with self._held.model() as (model, device):
            found = []
            for begin, end in spans(video.duration, WINDOW):
                times = np.linspace(begin, max(begin, end - 1 / max(video.fps, 1.0)), FRAMES).tolist()
                given = _pixels(torch.as_tensor(video.frames(times))).transpose(0, 1)[None, None]  # (1, 1, 3, F, S, S)
                found.append(array(model({"vision": given.to(device)})["vision"]))
            return heard(np.concatenate(found), self.name).windows

    def _folder(self) -> Path:
        where = f"put {FILE} into {checkpoint_folders()[0] / 'imagebind'}, or give imagebind=FOLDER"
        try:
            found = weights.find_local(self._source, [FILE])
        except DependencyError as error:
            raise DependencyError(f"ImageBind's weights are not in {self._source!r}: {where}") from error
        if found is None:
            raise DependencyError(f"ImageBind is in no repository that is known: {where}")
        return found.folder

    def _load(self) -> Any:
        model, device = _package().imagebind_huge(pretrained=False), choose_device(self._device)
        load_strict(model, read_tensors(self._folder() / FILE), "ImageBind", assign=True)
        return model.eval().requires_grad_(False).to(device), device


def _package() -> Any:
    """The package's module with the model, without its readers of videos, which current releases of torchvision broke.

    Raises MissingError where it or what it imports is not installed.
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
    least = RATE // 40  # of a frame
    samples = pad(samples, (0, max(0, least - len(samples))))
    how: dict[str, Any] = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "dither": 0.0}
    found = fbank((samples - samples.mean())[None], sample_frequency=RATE, num_mel_bins=BANDS, **how).T
    return (pad(found, (0, max(0, LONG - found.shape[1])))[:, :LONG] - MEAN) / DEVIATION


def _pixels(frames: Tensor) -> Tensor:
    """(F, H, W, 3) uint8 → (F, 3, 224, 224), the middle, as its short side is made that long."""
    x = frames.permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[2:]
    scale = SIDE / min(height, width)
    high, wide = max(SIDE, round(height * scale)), max(SIDE, round(width * scale))
    x = interpolate(x, (high, wide), mode="bilinear", align_corners=False, antialias=True)
    top, left = (high - SIDE) // 2, (wide - SIDE) // 2
    mean, deviation = (torch.tensor(each)[:, None, None] for each in COLOURS)
    return (x[..., top : top + SIDE, left : left + SIDE] - mean) / deviation
