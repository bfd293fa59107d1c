"""ImageBind: audio and video in one space, with a package of its own that v2m does not install.

Neither the package nor its weights may be used commercially (CC-BY-NC-4.0). Girdhar et al., "ImageBind: One Embedding
Space To Bind Them All" (2023). W windows of 2 s, D dimensions.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchaudio.compliance.kaldi import fbank

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import choose_device
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Floats, Video
from v2m.evaluation.embedders import AudioEmbedding, split_windows, to_mono, window_times
from v2m.evaluation.embedders.pretrained import BATCH_SIZE, FileEmbedder, join_batches, to_numpy
from v2m.media.audio import resample
from v2m.pretrained.safe_load import load_strict, read_tensors

WEIGHTS_FILE = "imagebind_huge.pth"
WINDOW_S, FRAMES_PER_WINDOW, SIDE = 2.0, 2, 224  # seconds, frames and pixels of a window
SAMPLE_RATE, NUM_MELS, NUM_FRAMES, MEAN, DEVIATION = 16_000, 128, 204, -4.268, 9.138  # of the spectrogram
PIXEL_MEAN_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageBindEmbedder(FileEmbedder):
    """ImageBind's embeddings of audio and video; `source` is a folder, or its name in `checkpoints/`."""

    title, default_source, weights_file = "ImageBind", "imagebind", WEIGHTS_FILE
    embeds_video = True

    def __init__(self, source: str = "imagebind", device: str = "auto") -> None:
        super().__init__(source, device)

    def prepare(self) -> None:
        """Raise DependencyError where the package or the weights are not on this machine."""
        _import_package()
        super().prepare()

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, D)."""
        with self._lazy_model.model() as (model, device):
            samples = to_mono(resample(audio, SAMPLE_RATE))
            windows = split_windows(samples, seconds_to_samples(WINDOW_S, SAMPLE_RATE))
            spectrograms = torch.stack([_spectrogram(torch.as_tensor(np.array(window))) for window in windows])
            batches = spectrograms[:, None, None].split(BATCH_SIZE)
            embeddings = [to_numpy(model({"audio": batch.to(device)})["audio"]) for batch in batches]
            return join_batches(embeddings, self.name)

    @torch.inference_mode()
    def embed_video(self, video: Video) -> Floats:
        """(W, D) of two frames a window, center-cropped."""
        with self._lazy_model.model() as (model, device):
            embeddings = []
            for start, end in window_times(video.duration, WINDOW_S):
                last = max(start, end - 1 / max(video.fps, 1.0))
                times = np.linspace(start, last, FRAMES_PER_WINDOW).tolist()
                pixels = _pixels(torch.as_tensor(video.frames(times))).transpose(0, 1)[None, None]  # (1, 1, 3, F, S, S)
                embeddings.append(to_numpy(model({"vision": pixels.to(device)})["vision"]))
            return join_batches(embeddings, self.name).embeddings

    def _load(self) -> Any:
        model, device = _import_package().imagebind_huge(pretrained=False), choose_device(self._device)
        load_strict(model, read_tensors(self._weights_folder() / WEIGHTS_FILE), "ImageBind", assign=True)
        return model.eval().requires_grad_(False).to(device), device


def _import_package() -> Any:
    """Import the package's model without its video readers, which current releases of torchvision broke."""
    spec = importlib.util.find_spec("imagebind")
    if spec is None:
        cure = "install imagebind from its repository (facebookresearch/ImageBind), or take pe-av"
        raise DependencyError(f"ImageBind needs its package, which is not for commercial use: {cure}")
    sys.modules.setdefault("imagebind", importlib.util.module_from_spec(spec))
    try:
        return importlib.import_module("imagebind.models.imagebind_model")
    except ImportError as error:
        raise DependencyError(f"ImageBind's package needs {error.name}, too: `pip install {error.name}`") from error


def _spectrogram(samples: Tensor) -> Tensor:
    """(N,) → (128, 204), normalized."""
    frame_length = SAMPLE_RATE // 40
    samples = pad(samples, (0, max(0, frame_length - len(samples))))
    options: dict[str, Any] = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "dither": 0.0}
    mel = fbank((samples - samples.mean())[None], sample_frequency=SAMPLE_RATE, num_mel_bins=NUM_MELS, **options).T
    return (pad(mel, (0, max(0, NUM_FRAMES - mel.shape[1])))[:, :NUM_FRAMES] - MEAN) / DEVIATION


def _pixels(frames: Tensor) -> Tensor:
    """(F, H, W, 3) uint8 → (F, 3, 224, 224), the short side resized to 224 and the center cropped."""
    x = frames.permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[2:]
    scale = SIDE / min(height, width)
    height, width = max(SIDE, round(height * scale)), max(SIDE, round(width * scale))
    x = interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    mean, deviation = (torch.tensor(values)[:, None, None] for values in PIXEL_MEAN_STD)
    return (x[..., top : top + SIDE, left : left + SIDE] - mean) / deviation
