"""musicnn's two networks, which tag music.

MTT_musicnn was trained on MagnaTagATune, MSD_musicnn on the Million Song Dataset. Pons and Serra, "musicnn: Pre-trained
Convolutional Neural Networks for Music Audio Tagging" (2019). Their weights come with the package musicnn 0.1.0 (ISC
license, Copyright 2019 Music Technology Group, Universitat Pompeu Fabra), which is not imported: it needs TensorFlow. W
windows of 187 frames (3 s), T frames, K = 50 tags; embeddings have D = 200.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from v2m.core import errors
from v2m.core.errors import DependencyError, UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.types import Audio, Floats
from v2m.evaluation.embedders import AudioEmbedding, to_mono
from v2m.evaluation.embedders.pretrained import BATCH_SIZE, PretrainedEmbedder, join_batches, to_numpy
from v2m.mappings.musicnn import from_tensorflow
from v2m.media.audio import resample
from v2m.pretrained.safe_load import check_finite, load_strict
from v2m.pretrained.tensorflow_checkpoint import read_tensorflow_checkpoint

SAMPLE_RATE, FFT_SIZE, HOP_LENGTH, NUM_MELS = 16_000, 512, 256, 96  # Hz, samples
WINDOW_FRAMES = 187
NORM_EPS = 1e-3  # TensorFlow's default
# The tags of each network, in the order of its outputs, with commas between.
TAGS = {
    "MTT_musicnn": (
        "guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, ambient, beat, violin, vocal, "
        "synth, female, indian, opera, male, singing, vocals, no vocals, harpsichord, loud, quiet, flute, woman, "
        "male vocal, no vocal, pop, soft, sitar, solo, man, classic, choir, voice, new age, dance, male voice, "
        "female vocal, beats, harp, cello, no voice, weird, country, metal, female voice, choral"
    ),
    "MSD_musicnn": (
        "rock, pop, alternative, indie, electronic, female vocalists, dance, 00s, alternative rock, jazz, beautiful, "
        "metal, chillout, male vocalists, classic rock, soul, indie rock, Mellow, electronica, 80s, folk, 90s, chill, "
        "instrumental, punk, oldies, blues, hard rock, ambient, acoustic, experimental, female vocalist, guitar, "
        "Hip-Hop, 70s, party, country, easy listening, sexy, catchy, funk, electro, heavy metal, Progressive rock, "
        "60s, rnb, indie pop, sad, House, happy"
    ),
}


@dataclass(frozen=True)
class MusicnnOutput:
    """Outputs of each window: tag probabilities (W, 50), embeddings (W, 200), pools (W, 753)."""

    tag_probs: Floats
    penultimate: Floats
    mean_pool: Floats
    max_pool: Floats


class _Block(nn.Module):
    """Convolution, ReLU, norm; the convolution's kernel is (time, frequency)."""

    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, kernel, padding=((kernel[0] - 1) // 2, 0))
        self.norm = nn.BatchNorm2d(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(W, 1, T, F) → (W, channels, T), the maximum over frequency."""
        if self.conv.kernel_size[0] % 2 == 0:  # TensorFlow pads the end by one more
            x = nn.functional.pad(x, (0, 0, 0, 1))
        return self.norm(self.conv(x).relu()).amax(dim=3)


class _Network(nn.Module):
    """(W, T, 96) log-mel spectrograms → logits of the tags, penultimate layer, mean and maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        timbral = [_Block(204, (7, 38)), _Block(204, (7, 67))]
        temporal = [_Block(51, (frames, 1)) for frames in (128, 64, 32)]
        self.input_norm = nn.BatchNorm2d(1, NORM_EPS)
        self.frontend = nn.ModuleList([*timbral, *temporal])
        self.midend = nn.ModuleList([_Block(64, (7, width)) for width in (561, 64, 64)])
        self.pooled_norm = nn.BatchNorm1d(2 * 753, NORM_EPS)
        self.penultimate = nn.Linear(2 * 753, 200)
        self.penultimate_norm = nn.BatchNorm1d(200, NORM_EPS)
        self.output = nn.Linear(200, 50)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.input_norm(x[:, None])
        first, second, third = self.midend
        features = torch.cat([block(x) for block in self.frontend], dim=1)  # (W, 561, T)
        a = first(_as_image(features))
        b = second(_as_image(a)) + a
        c = third(_as_image(b)) + b
        features = torch.cat([features, a, b, c], dim=1)  # (W, 753, T)
        maximum, mean = features.amax(dim=2), features.mean(dim=2)
        pooled = self.pooled_norm(torch.stack([maximum, mean], dim=2).flatten(1))  # by turns
        penultimate = self.penultimate_norm(self.penultimate(pooled).relu())
        return self.output(penultimate), penultimate, mean, maximum


class MusicnnEmbedder(PretrainedEmbedder):
    """Tags and embeddings of music by one of musicnn's networks.

    `source` is its name, MSD_musicnn or MTT_musicnn, or a folder of that name with its checkpoint.
    """

    def __init__(self, source: str = "MSD_musicnn", device: str = "auto") -> None:
        super().__init__(source, device)
        if self.name not in TAGS:
            raise UsageError(f"the networks of musicnn are {' and '.join(TAGS)}, not {source!r}")
        self.tags = TAGS[self.name].split(", ")

    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """The penultimate layer (W, 200), and the mean probabilities of the tags."""
        output = self.analyze(audio)
        return AudioEmbedding(output.penultimate, tag_probs=self.mean_tag_probs(output))

    @torch.inference_mode()
    def analyze(self, audio: Audio) -> MusicnnOutput:
        """Return the outputs of consecutive windows; a rest is left out, a piece shorter than one is repeated."""
        with self._lazy_model.model() as model:
            device = next(model.parameters()).device
            windows = torch.from_numpy(_windows(log_mel(to_mono(resample(audio, SAMPLE_RATE)))))
            outputs = [model(batch.to(device)) for batch in windows.split(BATCH_SIZE)]
            logits, penultimate, mean, maximum = (
                join_batches([to_numpy(batch) for batch in batches], self.name).embeddings
                for batches in zip(*outputs, strict=True)
            )
            return MusicnnOutput(1 / (1 + np.exp(-logits)), penultimate, mean, maximum)

    def mean_tag_probs(self, output: MusicnnOutput) -> dict[str, float]:
        """Return the mean probability of each tag over the windows, the most probable first."""
        probs = output.tag_probs.mean(axis=0)
        return {self.tags[index]: float(probs[index]) for index in np.argsort(-probs)}

    def top_tags(self, audio: Audio, count: int = 3) -> dict[str, float]:
        """Return the tags that are most probable on average over the windows, the best first."""
        return dict(list(self.mean_tag_probs(self.analyze(audio)).items())[:count])

    def _weights_folder(self) -> Path:
        folder = Path(self._source).expanduser()
        if folder.is_dir():
            return folder
        if self._source != self.name:
            raise UsageError(f"there is no folder {self._source!r}: give one with the checkpoint of {self.name}")
        package = importlib.util.find_spec("musicnn")
        if package is None or not package.submodule_search_locations:
            hint = f"{errors.INSTALL_MUSICNN}, or give musicnn=FOLDER/{self.name}"
            raise DependencyError(f"the weights {self.name} come with the package musicnn: {hint}")
        return Path(package.submodule_search_locations[0]) / self.name

    def _load(self) -> nn.Module:
        folder = self._weights_folder()
        state = from_tensorflow(read_tensorflow_checkpoint(folder))
        check_finite(state, f"{self.name} ({str(folder)!r})")
        model = build_network()
        # which only training would use, and TensorFlow does not keep
        counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
        load_strict(model, counters | state, self.name, assign=True)
        return model.eval().requires_grad_(False).to(choose_device(self._device))


def build_network() -> nn.Module:
    """Return the network with random weights."""
    return _Network()


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, 96) of `samples` (N,) at SAMPLE_RATE, in half precision before the logarithm as in training."""
    window = torch.hann_window(FFT_SIZE)
    options = {"pad_mode": "constant", "return_complex": True}
    power = torch.stft(torch.from_numpy(samples), FFT_SIZE, HOP_LENGTH, window=window, **options).abs().square()
    filters = mel_filter_bank(FFT_SIZE // 2 + 1, NUM_MELS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")
    mel = power.numpy().T @ filters.astype(np.float32)
    return np.log10(10_000 * mel.astype(np.float16).astype(np.float32) + 1)


def _windows(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, 96) → (W, 187, 96)."""
    count = max(1, len(frames) // WINDOW_FRAMES)
    return np.resize(frames, (count, WINDOW_FRAMES, NUM_MELS))


def _as_image(features: Tensor) -> Tensor:
    """(W, channels, T) → (W, 1, T, channels)."""
    return features.transpose(1, 2)[:, None]
