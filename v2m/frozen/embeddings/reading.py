"""What the models of transformers that hear have in common: how their files are read and their numbers given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v2m.errors import MissingError, out_of_memory
from v2m.frozen.holder import choose_device
from v2m.metrics.embedding import Heard
from v2m.types import Floats

CPU = torch.device("cpu")
BATCH = 8  # windows at a time


def exact(model: Any, device: str) -> Any:
    """A model that was loaded where its weights keep all their digits, on the device that was asked for, in float32."""
    return model.to(device=choose_device(device), dtype=torch.float32)


def extractor(kind: Any, folder: Path, what: str) -> Any:
    """How sound or pictures are made into what the model takes, as the folder says. Raises MissingError."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of any kind: the files decide which
        if out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        raise MissingError(f"{str(folder)!r} does not say what {what} takes ({said}): fetch it again") from error


def array(value: Tensor) -> Floats:
    return value.detach().cpu().double().numpy()


def heard(found: Floats, name: str, classes: Floats | None = None) -> Heard:
    """Raises MissingError where weights give what are no numbers."""
    if not np.isfinite(found).all() or (classes is not None and not np.isfinite(classes).all()):
        raise MissingError(f"{name} hears what are no numbers: its weights are broken; fetch them again")
    return Heard(found, classes)
