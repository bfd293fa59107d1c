"""VGGish, by which the Fréchet audio distance was defined, from the weights that torchvggish publishes.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (2017); Kilgour et al., "Fréchet Audio
Distance" (2019). W windows of 0.96 s, 96 frames of 64 bands each; D = 128.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import Audio, Floats
from v2m.evaluation.embedder import Heard, mono
from v2m.evaluation.embedders.base import array, heard
from v2m.media.audio import resample
from v2m.pretrained import weights
from v2m.pretrained.file_patterns import checkpoint_folders
from v2m.pretrained.safe_load import check_finite, load_strict, read_tensors

FILE = "vggish-10086976.pth"
RATE, FRAME, HOP, FFT = 16_000, 400, 160, 512  # Hz, samples
BANDS, LOWEST, HIGHEST, FLOOR = 64, 125.0, 7500.0, 0.01
LONG = 96  # frames of a window
BATCH = 64
WIDTHS = (64, 128, 256, 256, 512, 512)
POOLED = {0, 1, 3, 5}  # after which of these layers the map is halved


class _Network(nn.Module):
    """(W, 1, 96, 64) → (W, 128), before the last activation, as the distance is computed."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] * (k in POOLED)
        self.features = nn.Sequential(*layers)
        wide = nn.Linear(512 * 6 * 4, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True)
        self.embeddings = nn.Sequential(*wide, nn.Linear(4096, 128))

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.features(x).permute(0, 2, 3, 1).flatten(1))  # channels last, as it was trained


def network() -> nn.Module:
    """With random weights, which have the names of those that are published."""
    return _Network()


class Vggish:
    """Weights load on first use.

    Args:
        source: A folder with vggish-10086976.pth of torchvggish's release v0.1; or its name in `checkpoints/`.
        device: As `choose_device` takes it.
    """

    def __init__(self, source: str = "vggish", device: str = "auto") -> None:
        self.name, self._source, self._device = Path(source).name, source, device
        self._held: LazyModel[Any] = LazyModel(self._load, "measure fewer things at a time")

    def prepare(self) -> None:
        """Raises MissingError where the weights are not here."""
        self._folder()

    def release(self) -> None:
        self._held.release()

    @torch.inference_mode()
    def hear(self, audio: Audio) -> Heard:
        """(W, 128); what is left at the end, shorter than a window, is not heard."""
        with self._held.model() as (model, bands):
            mel = _log_mel(mono(resample(audio, RATE)), bands)
            pieces = torch.as_tensor(mel[: len(mel) // LONG * LONG].reshape(-1, 1, LONG, BANDS), dtype=torch.float32)
            device = next(model.parameters()).device
            found = [array(model(part.to(device))) for part in pieces.split(BATCH)]
            return heard(np.concatenate(found), self.name)

    def _folder(self) -> Path:
        try:
            found = weights.find_local(self._source, [FILE])
        except DependencyError as error:
            if Path(self._source).is_dir():
                raise
            where = checkpoint_folders()[0] / "vggish"
            raise DependencyError(
                f"VGGish: there is no folder {self._source!r}; put {FILE} of torchvggish's release v0.1 into {where}, "
                "or give vggish=FOLDER"
            ) from error
        if found is None:
            raise DependencyError(f"VGGish is in no repository that is known: give vggish=FOLDER, which holds {FILE}")
        return found.folder

    def _load(self) -> Any:
        path = self._folder() / FILE
        state = read_tensors(path)
        check_finite(state, f"VGGish ({str(path)!r})")
        model = network()
        load_strict(model, state, "VGGish", assign=True)
        return model.eval().requires_grad_(False).to(choose_device(self._device)), _bands()


def _log_mel(samples: np.ndarray, bands: Floats) -> Floats:
    """(F, 64): the logarithm of magnitudes, in bands whose triangles are straight on the mel scale."""
    least = FRAME + (LONG - 1) * HOP
    samples = np.pad(samples, (0, max(0, least - len(samples)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    return np.log(np.abs(np.fft.rfft(frames * window, FFT)) @ bands + FLOOR)


def _bands() -> Floats:
    """(257, 64)"""
    mel = {"norm": None, "mel_scale": "kaldi", "triangularize_in_mel_space": True}  # 1127 ln(1 + f / 700)
    return mel_filter_bank(FFT // 2 + 1, BANDS, LOWEST, HIGHEST, RATE, **mel)  # type: ignore[arg-type]
