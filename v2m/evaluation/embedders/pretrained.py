"""Base classes of embedders whose weights load on first use, and conversions that they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import Floats, WeightsInfo
from v2m.evaluation.embedders import AudioEmbedding, BaseEmbedder
from v2m.pretrained import transformers_loader, weights
from v2m.pretrained.weights import checkpoint_folders

CPU = torch.device("cpu")
BATCH_SIZE = 8  # windows


class PretrainedEmbedder(BaseEmbedder):
    """An embedder with a `LazyModel`, named after the folder or repository of its weights."""

    oom_hint: ClassVar[str] = "measure fewer things at a time"

    def __init__(self, source: str, device: str = "auto") -> None:
        self.name, self._source, self._device = Path(source).name, source, device
        self._lazy_model: LazyModel[Any] = LazyModel(self._load, self.oom_hint)

    def prepare(self) -> None:
        """Raise DependencyError where the weights are not on this machine."""
        self._weights_folder()

    def release(self) -> None:
        self._lazy_model.release()

    def _weights_folder(self) -> Path:
        raise NotImplementedError

    def _load(self) -> Any:
        """Return what `_lazy_model` holds: the model, and the processors of its inputs."""
        raise NotImplementedError


class FileEmbedder(PretrainedEmbedder):
    """An embedder whose weights are a single file that the user fetches."""

    title: ClassVar[str]
    default_source: ClassVar[str]  # its folder in `checkpoints/`
    weights_file: ClassVar[str]
    file_origin: ClassVar[str] = ""

    def _weights_folder(self) -> Path:
        folder = checkpoint_folders()[0] / self.default_source
        cure = f"put {self.weights_file}{self.file_origin} into {folder}, or give {self.default_source}=FOLDER"
        try:
            info = weights.find_local(self._source, [self.weights_file])
        except (DependencyError, UsageError) as error:
            kind = DependencyError if self._source == self.default_source else type(error)
            raise kind(f"{self.title}'s weights are not in {self._source!r}: {cure}") from error
        if info is None:
            raise DependencyError(f"{self.title} is in no repository that is known: {cure}")
        return info.folder


class HFEmbedder(PretrainedEmbedder):
    """An embedder with weights in transformers' layout, fetched from the hub if need be."""

    files: ClassVar[tuple[str, ...]]
    license: ClassVar[str]

    def prepare(self) -> None:
        """Fetch the weights and announce their license. Raises DependencyError where they cannot be had."""
        weights.announce_license(self._fetch())

    def _weights_folder(self) -> Path:
        return self._fetch().folder

    def _place(self, model: Any) -> Any:
        """Move a model, loaded in the precision of its weights, to the device in float32."""
        return model.to(device=choose_device(self._device), dtype=torch.float32)

    def _fetch(self) -> WeightsInfo:
        return weights.fetch(self._source, self.files, license=self.license)


def load_extractor(kind: Any, folder: Path, description: str) -> Any:
    """Load a feature extractor. Raises DependencyError where `folder` has no usable config."""
    return transformers_loader.load_processor(kind, folder, f"{str(folder)!r} does not say what {description} takes")


def to_numpy(value: Tensor) -> Floats:
    return value.detach().cpu().double().numpy()


def join_batches(batches: Sequence[Floats], name: str, class_probs: Sequence[Floats] = ()) -> AudioEmbedding:
    """Join batches of windows. Raises DependencyError where the weights of `name` give NaN or infinity."""
    if not all(np.isfinite(values).all() for values in (*batches, *class_probs)):
        raise DependencyError(f"{name} gives what are no numbers: its weights are broken; fetch them again")
    return AudioEmbedding(np.concatenate(batches), np.concatenate(class_probs) if class_probs else None)
