"""Chroma features for MusicGen-melody: the strongest pitch class of each frame, one-hot.

Copet et al., "Simple and Controllable Music Generation" (2023), section 2.3. The transform is that of transformers.

B batch, F frames of chroma, P pitch classes (12, C first).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MusicgenMelodyFeatureExtractor

from v2m.core.errors import DependencyError, error_text
from v2m.core.types import Audio
from v2m.pretrained.safe_load import read_json

CONFIG_FILE = "preprocessor_config.json"
EXTRACTOR_TYPE = "MusicgenMelodyFeatureExtractor"


class Chroma:
    """Chroma extractor; `num_frames` (235) is of 30 s at 32 kHz, a frame every 4096 samples.

    The whole sound counts, so under a loud bass the bass wins: audiocraft removes bass and drums first, as
    `v2m.generators.musicgen` does. A tune by itself gives the same either way.
    """

    def __init__(self, extractor: MusicgenMelodyFeatureExtractor) -> None:
        self.sample_rate: int = extractor.sampling_rate
        self.num_classes: int = extractor.feature_size
        self.num_frames = 1 + extractor.n_samples // extractor.hop_length
        self._extractor = extractor

    @classmethod
    def load(cls, folder: Path | None = None) -> Chroma:
        """Build the transform from the folder's preprocessor_config.json, or from the published settings."""
        config = {} if folder is None or not (folder / CONFIG_FILE).is_file() else read_json(folder / CONFIG_FILE)
        if folder is None or config.get("feature_extractor_type") != EXTRACTOR_TYPE:
            return cls(MusicgenMelodyFeatureExtractor())  # a codec's, beside models without melody
        names = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "num_chroma")
        try:
            return cls(MusicgenMelodyFeatureExtractor(**{name: config[name] for name in names if name in config}))
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            message = f"{str(folder / CONFIG_FILE)!r} makes no chroma ({error_text(error)}): download it again"
            raise DependencyError(message) from error

    @torch.inference_mode()
    def extract(self, *melodies: Audio) -> Tensor:
        """Chroma (B, `num_frames`, P) float32, one-hot per frame, of sounds of any rate and any channels.

        The first 30 s count; a shorter sound is repeated to fill them, as in transformers. A silent frame gives the
        first class, since none is stronger.
        """
        assert melodies, "there is no melody"
        return torch.stack([self._extract_one(melody) for melody in melodies])

    def null(self, batch_size: int = 1) -> Tensor:
        """Chroma (B, `num_frames`, P) for "no melody": the first class throughout, as for silence."""
        chroma = torch.zeros(batch_size, self.num_frames, self.num_classes)
        chroma[..., 0] = 1
        return chroma

    def _extract_one(self, melody: Audio) -> Tensor:
        assert len(melody) > 0, "the melody has no samples"
        mono: Any = torch.from_numpy(melody.samples.mean(axis=0))  # of a tensor, the extractor resamples it itself
        chroma = self._extractor(mono, sampling_rate=melody.sample_rate, return_tensors="pt")["input_features"][0]
        return chroma.repeat(-(-self.num_frames // len(chroma)), 1)[: self.num_frames]
