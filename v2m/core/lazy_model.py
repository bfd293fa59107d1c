"""The choice of device and dtype, and models loaded on first use. Torch is imported where it is used."""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from v2m.core import errors
from v2m.core.errors import UsageError, is_out_of_memory

if TYPE_CHECKING:
    import torch

ModelT = TypeVar("ModelT")

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device `name`; "auto" takes CUDA, MPS, then the CPU. Raise UsageError for an absent one."""
    import torch

    available = [f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    available += ["mps"] if torch.backends.mps.is_available() else []
    available.append("cpu")
    kinds = [device.partition(":")[0] for device in available]
    if name == "auto":
        return torch.device(kinds[0])
    if name not in available and name not in kinds:
        raise UsageError(f"device {name!r} is none of this machine's: give auto or {' or '.join(available)}")
    return torch.device(name)


def choose_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device computes in it, float16 on older CUDA cards, float32 on the CPU."""
    import torch

    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def quantization_config(bits: Literal[4, 8] | None, device: torch.device | None = None) -> Any:
    """Return transformers' setting for weights of `bits` (bitsandbytes), computing in the device's dtype.

    Raises ModuleNotFoundError without bitsandbytes or accelerate, UsageError where `device` has no kernels for it.
    """
    if bits is None:
        return None
    if device is not None and device.type not in {"cuda", "cpu"}:
        raise UsageError(f"{bits}-bit weights do not run on {device.type}: give cuda or cpu, or leave them whole")
    errors.require_packages("bitsandbytes", "accelerate")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of kernels it does without, of casts at every call
    import torch
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    dtype = torch.bfloat16 if device is None else choose_dtype(device)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


class LazyModel(Generic[ModelT]):
    """Loads a model on first use, frees it on `release`; an out-of-memory message ends with `cure`."""

    def __init__(self, load: Callable[[], ModelT], cure: str) -> None:
        self._load, self._cure = load, cure
        self._model: ModelT | None = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @contextmanager
    def model(self) -> Iterator[ModelT]:
        """Provide the model; blocks may be nested. Raise MemoryError, and drop it, where memory runs out."""
        try:
            if self._model is None:
                self._model = self._load()
            yield self._model
        except BaseException as error:
            if not is_out_of_memory(error):
                raise
            self.release()
            if isinstance(error, _ReportedOOMError):
                raise
            raise _ReportedOOMError(f"{_format_shortage(error)}; {self._cure}") from error

    def release(self) -> None:
        """Free the memory, for other programs too. The model lives on where it is still referenced."""
        if self._model is not None:  # collecting takes a good part of a second
            self._model = None
            empty_cache()


def empty_cache() -> None:
    """Collect garbage and return the allocator's cached memory to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:  # nothing has been loaded, and importing it takes seconds
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


class _ReportedOOMError(MemoryError):
    """An error whose message names the cure already, so that an outer block adds none of its own."""


def _format_shortage(error: BaseException) -> str:
    """Describe the failed allocation in one line, in place of the allocator's paragraph of advice."""
    size = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", str(error))
    kind = next((word for word in ("CUDA", "MPS") if word in str(error)), None)
    place = "this machine's memory" if kind is None else f"the {kind} device"
    if size is None:
        return f"{place} has no room left"
    amount = float(size[1]) * UNITS[size[2]]
    unit = next((name for name in ("GiB", "MiB", "KiB") if amount >= UNITS[name]), "bytes")
    return f"{place} has no room for another {amount / UNITS[unit]:.3g} {unit}"
