"""A melody as MusicGen-melody hears it: of each short stretch of sound, which of the twelve pitch classes is strongest.

Copet et al., "Simple and Controllable Music Generation" (2023), section 2.3. transformers has the transform.

B batch, F frames of chroma, P pitch classes (12, C first).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MusicgenMelodyFeatureExtractor

from v2m.core.errors import DependencyError
from v2m.core.types import Audio
from v2m.pretrained.safe_load import read_json

CONFIG_FILE = "preprocessor_config.json"
EXTRACTOR_TYPE = "MusicgenMelodyFeatureExtractor"


class Chroma:
    """The transform. `frames` (235) are as many as the models were trained on: 30 s at 32 kHz, one every 4096 samples.

    All of the sound is heard, and under a loud bass the bass: the authors first leave out bass and drums, as
    `v2m.generators.musicgen.melody` does. A tune by itself comes out the same.
    """

    def __init__(self, extractor: MusicgenMelodyFeatureExtractor) -> None:
        self.sample_rate: int = extractor.sampling_rate
        self.num_classes: int = extractor.feature_size
        self.num_frames = 1 + extractor.n_samples // extractor.hop_length
        self._extractor = extractor

    @classmethod
    def load(cls, folder: Path | None = None) -> Chroma:
        """With the settings of the folder's preprocessor_config.json; with the published ones where it has none.

        Raises:
            MissingError: The file is broken, or holds settings that make no such transform.
        """
        if folder is None or not (folder / CONFIG_FILE).is_file():
            return cls(MusicgenMelodyFeatureExtractor())
        settings = read_json(folder / CONFIG_FILE)
        if (
            settings.get("feature_extractor_type") != EXTRACTOR_TYPE
        ):  # a codec's, which stands beside models without melody
            return cls(MusicgenMelodyFeatureExtractor())
        names = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "num_chroma")
        try:
            chosen = {name: settings[name] for name in names if name in settings}
            return cls(MusicgenMelodyFeatureExtractor(**chosen))
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            said = " ".join(str(error).split())
            raise DependencyError(
                f"{str(folder / CONFIG_FILE)!r} makes no chroma ({said}): download it again"
            ) from error

    @torch.inference_mode()
    def extract(self, *melodies: Audio) -> Tensor:
        """(B, `frames`, P) float32, one 1 in each frame: of sounds of any rate and any channels.

        30 s are heard; a shorter sound begins anew until they are full, as in transformers. A silent frame gives the
        first class, since none is stronger.
        """
        assert melodies, "there is no melody"
        return torch.stack([self._extract_one(each) for each in melodies])

    def null(self, batch_size: int = 1) -> Tensor:
        """(B, `frames`, P) that stands for no melody: the first class throughout, as of silence, as in transformers."""
        found = torch.zeros(batch_size, self.num_frames, self.num_classes)
        found[..., 0] = 1
        return found

    def _extract_one(self, melody: Audio) -> Tensor:
        assert len(melody) > 0, "the melody has no samples"
        mono: Any = torch.from_numpy(melody.samples.mean(axis=0))  # a tensor it resamples itself
        found = self._extractor(mono, sampling_rate=melody.sample_rate, return_tensors="pt")["input_features"][0]
        return found.repeat(-(-self.num_frames // len(found)), 1)[: self.num_frames]
