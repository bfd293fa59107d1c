"""A model in memory only while it is needed, on the device that was asked for. Imports torch where it is used alone."""

from __future__ import annotations

import gc
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from v2m.core import extras
from v2m.core.errors import UsageError, is_out_of_memory

if TYPE_CHECKING:
    import torch

ModelT = TypeVar("ModelT")

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def choose_device(wanted: str = "auto") -> torch.device:
    """ "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: `wanted` is no device, or none of this machine; says which there are.
    """
    import torch

    there = [f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    there += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if wanted == "auto":
        return torch.device(there[0].partition(":")[0])
    kinds = {name.partition(":")[0] for name in there}
    if wanted not in there and wanted not in kinds:
        raise UsageError(f"device {wanted!r} is none of this machine's: give auto or {' or '.join(there)}")
    return torch.device(wanted)


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, float16 on older CUDA cards; float32 on the CPU."""
    import torch

    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def quantization_config(bits: Literal[4, 8] | None, device: torch.device | None = None) -> Any:
    """transformers' setting for weights of so many bits (bitsandbytes), or None; what computes has the device's dtype.

    Raises:
        ModuleNotFoundError: bitsandbytes or accelerate is not installed.
        UsageError: `device` has no kernels for it.
    """
    if bits is None:
        return None
    if device is not None and device.type not in {"cuda", "cpu"}:
        raise UsageError(f"{bits}-bit weights do not run on {device.type}: give cuda or cpu, or leave them whole")
    extras.require("bitsandbytes", "accelerate")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of kernels it does without, of casts at every call
    import torch
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    dtype = torch.bfloat16 if device is None else choose_dtype(device)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


class LazyModel(Generic[ModelT]):
    """Loads a model on first use and frees it on `release`.

    Args:
        load: Makes the model.
        cure: What to lower when memory runs out; becomes the end of the error's line.
    """

    def __init__(self, load: Callable[[], ModelT], cure: str) -> None:
        self._load = load
        self._cure = cure
        self._model: ModelT | None = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @contextmanager
    def model(self) -> Iterator[ModelT]:
        """The model; blocks may be nested.

        Raises:
            MemoryError: Memory ran out while loading or inside the block. The model is dropped; the next use loads it
                again.
        """
        try:
            if self._model is None:
                self._model = self._load()
            yield self._model
            return
        except BaseException as error:
            if not is_out_of_memory(error):
                raise
            told = str(error) if isinstance(error, _ReportedOOMError) else f"{_format_shortage(error)}; {self._cure}"
            _clear_traceback_frames(error)
        self._model = None
        empty_cache()
        raise _ReportedOOMError(
            told
        )  # outside of the handler, so that it carries none of the frames that hold the memory

    def release(self) -> None:
        """Gives the memory back, to the driver too. Who still holds the model keeps it alive."""
        if self._model is not None:  # collecting takes a good part of a second
            self._model = None
            empty_cache()


def empty_cache() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:  # nothing has been loaded, and importing it takes seconds
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


class _ReportedOOMError(MemoryError):
    """Names the cure already: an outer block adds none of its own."""


def _format_shortage(error: BaseException) -> str:
    """Describe the failed allocation in one line, in place of the allocator's paragraph of advice."""
    size = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", str(error))
    where = next((word for word in ("CUDA", "MPS") if word in str(error)), None)
    place = "this machine's memory" if where is None else f"the {where} device"
    if size is None:
        return f"{place} has no room left"
    amount = float(size[1]) * UNITS[size[2]]
    unit = next((name for name in ("GiB", "MiB", "KiB") if amount >= UNITS[name]), "bytes")
    return f"{place} has no room for another {amount / UNITS[unit]:.3g} {unit}"


def _clear_traceback_frames(error: BaseException | None) -> None:
    """Empties the frames behind an error and what led to it: their locals would keep the model and its tensors."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
