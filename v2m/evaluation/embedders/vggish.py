"""VGGish, by which the Fréchet audio distance was defined, with the weights of torchvggish.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (2017); Kilgour et al., "Fréchet Audio
Distance" (2019). W windows of 0.96 s, 96 frames of 64 mel bands each; D = 128.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from v2m.core.lazy_model import choose_device
from v2m.core.types import Audio, Floats
from v2m.evaluation.embedders import AudioEmbedding, to_mono
from v2m.evaluation.embedders.pretrained import FileEmbedder, join_batches, to_numpy
from v2m.media.audio import resample
from v2m.pretrained.safe_load import check_finite, load_strict, read_tensors

WEIGHTS_FILE = "vggish-10086976.pth"
SAMPLE_RATE, FRAME_LENGTH, HOP_LENGTH, FFT_SIZE = 16_000, 400, 160, 512  # Hz, samples
NUM_MELS, MIN_HZ, MAX_HZ, LOG_OFFSET = 64, 125.0, 7500.0, 0.01
WINDOW_FRAMES = 96
BATCH_SIZE = 64  # windows
WIDTHS = (64, 128, 256, 256, 512, 512)
POOLED_LAYERS = {0, 1, 3, 5}  # after which the map is halved


class _Network(nn.Module):
    """(W, 1, 96, 64) → (W, 128), before the last activation, as the distance is computed."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
            if k in POOLED_LAYERS:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        wide = nn.Linear(512 * 6 * 4, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True)
        self.embeddings = nn.Sequential(*wide, nn.Linear(4096, 128))

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.features(x).permute(0, 2, 3, 1).flatten(1))  # channels last, as it was trained


def build_network() -> nn.Module:
    """Return VGGish with random weights; its state dict has the published names."""
    return _Network()


class VggishEmbedder(FileEmbedder):
    """VGGish's embeddings of audio; `source` is a folder, or its name in `checkpoints/`."""

    title, default_source = "VGGish", "vggish"
    weights_file, file_origin = WEIGHTS_FILE, " of torchvggish's release v0.1"

    def __init__(self, source: str = "vggish", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, 128); a rest shorter than a window is left out."""
        with self._lazy_model.model() as (model, filters):
            mel = _log_mel(to_mono(resample(audio, SAMPLE_RATE)), filters)
            count = len(mel) // WINDOW_FRAMES
            windows = mel[: count * WINDOW_FRAMES].reshape(count, 1, WINDOW_FRAMES, NUM_MELS)
            device = next(model.parameters()).device
            batches = torch.as_tensor(windows, dtype=torch.float32).split(BATCH_SIZE)
            embeddings = [to_numpy(model(batch.to(device))) for batch in batches]
            return join_batches(embeddings, self.name)

    def _load(self) -> Any:
        path = self._weights_folder() / WEIGHTS_FILE
        state = read_tensors(path)
        check_finite(state, f"VGGish ({str(path)!r})")
        model = build_network()
        load_strict(model, state, "VGGish", assign=True)
        return model.eval().requires_grad_(False).to(choose_device(self._device)), _mel_filters()


def _log_mel(samples: np.ndarray, filters: Floats) -> Floats:
    """(F, 64) log mel magnitudes; samples shorter than a window are padded to one."""
    min_length = FRAME_LENGTH + (WINDOW_FRAMES - 1) * HOP_LENGTH
    samples = np.pad(samples, (0, max(0, min_length - len(samples)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_LENGTH)[::HOP_LENGTH]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME_LENGTH) / FRAME_LENGTH)
    return np.log(np.abs(np.fft.rfft(frames * window, FFT_SIZE)) @ filters + LOG_OFFSET)


def _mel_filters() -> Floats:
    """(257, 64) triangles that are straight on the mel scale."""
    scale = {"norm": None, "mel_scale": "kaldi", "triangularize_in_mel_space": True}  # 1127 ln(1 + f / 700)
    return mel_filter_bank(FFT_SIZE // 2 + 1, NUM_MELS, MIN_HZ, MAX_HZ, SAMPLE_RATE, **scale)  # type: ignore[arg-type]
