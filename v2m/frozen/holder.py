"""A model in memory only while it is needed, on the device that was asked for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Literal, TypeVar

import torch

Model = TypeVar("Model")


def choose_device(wanted: str = "auto") -> torch.device:
    """ "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: `wanted` is no device, or none of this machine.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(wanted)


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it; float32 on the CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def quantisation(bits: Literal[4, 8] | None) -> Any:
    """transformers' setting for weights of so many bits (bitsandbytes), or None.

    Raises:
        MissingError: bitsandbytes or accelerate is not installed.
    """
    if bits is None:
        return None
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


class Holder(Generic[Model]):
    """Loads a model on first use and frees it on `release`.

    Args:
        load: Makes the model.
        cure: What to lower when memory runs out; becomes the end of the error's line.
    """

    def __init__(self, load: Callable[[], Model], cure: str) -> None:
        self._load = load
        self._cure = cure
        self._model: Model | None = None

    @contextmanager
    def model(self) -> Iterator[Model]:
        """The model; running out of memory inside the block raises MemoryError with the cure."""
        if self._model is None:
            self._model = self._load()
        yield self._model

    def release(self) -> None:
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
