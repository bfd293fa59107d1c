"""What the models of transformers that hear have in common: how their files are read and their numbers given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import Floats, WeightsInfo
from v2m.evaluation.embedder import AudioEmbedding
from v2m.pretrained import transformers_loader, weights

CPU = torch.device("cpu")
BATCH_SIZE = 8  # windows at a time


class HFEmbedder:
    """A model in transformers' layout, whose weights load on first use.

    Args:
        source: A repository of the hub, or a folder.
        device: As `choose_device` takes it.
    """

    files: ClassVar[tuple[str, ...]]
    license: ClassVar[str]
    oom_hint: ClassVar[str] = "measure fewer things at a time"

    def __init__(self, source: str, device: str = "auto") -> None:
        self.name, self._source, self._device = Path(source).name, source, device
        self._lazy_model: LazyModel[Any] = LazyModel(lambda: self._load(self._fetch_weights().folder), self.oom_hint)

    def prepare(self) -> None:
        """Raises DependencyError where the weights cannot be had."""
        weights.announce_license(self._fetch_weights())

    def release(self) -> None:
        self._lazy_model.release()

    def _fetch_weights(self) -> WeightsInfo:
        return weights.fetch(self._source, self.files, license=self.license)

    def _load(self, folder: Path) -> Any:
        """What `_held` gives: the model, and what makes sound, words or pictures ready for it."""
        raise NotImplementedError


def to_float32(model: Any, device: str) -> Any:
    """A model that was loaded where its weights keep all their digits, on the device that was asked for, in float32."""
    return model.to(device=choose_device(device), dtype=torch.float32)


def load_extractor(kind: Any, folder: Path, what: str) -> Any:
    """How sound or pictures are made into what the model takes, as the folder says. Raises DependencyError."""
    return transformers_loader.load_processor(kind, folder, f"{str(folder)!r} does not say what {what} takes")


def to_numpy(value: Tensor) -> Floats:
    return value.detach().cpu().double().numpy()


def to_audio_embedding(found: Floats, name: str, classes: Floats | None = None) -> AudioEmbedding:
    """Raises DependencyError where weights give what are no numbers."""
    if not np.isfinite(found).all() or (classes is not None and not np.isfinite(classes).all()):
        raise DependencyError(f"{name} hears what are no numbers: its weights are broken; fetch them again")
    return AudioEmbedding(found, classes)
