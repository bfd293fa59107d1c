"""The linear kernel of each precision: the fastest one here, by a short measurement that is kept.

No kernel is the fastest everywhere: oneDNN's bfloat16 takes 0.7 of an AMD processor's bandwidth and half of an Intel
one's; FBGEMM's 8-bit kernel needs VNNI; ours need a compiler. The measurement multiplies two vectors, as a guided step
does, with more weights than fit in the processor's caches. The result lies in the user's cache, by processor, number of
threads, PyTorch and kernels, so that later runs on the same machine round alike.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from v2m.core import atomic, compat
from v2m.core.errors import UsageError
from v2m.models.inference import cpu_kernels
from v2m.models.inference.cpu_kernels import ORDERS, CPUKernels, Order
from v2m.models.inference.fast_linear import (
    DenseLinear,
    FastLinear,
    Int4WeightLinear,
    Int8DynamicLinear,
    Int8WeightLinear,
    NativeLinear,
    OneDNNLinear,
    Precision,
    has_int8_dynamic_kernel,
)

SHAPE = (4096, 1024)  # of a weight that is measured with: the largest of MusicGen-small
ROWS = 2
WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}
MEASURED_BYTES = 96 * 2**20  # three times the largest cache that two cores of a server share
MIN_LARGE_PARAMETERS = 32 * 2**20
PASSES = 4  # of which the fastest counts

logger = logging.getLogger(__name__)


class Kernel(NamedTuple):
    """A way to multiply: its name, the type of its vectors, and `make`, from a weight (O, D) and R."""

    name: str
    dtype: torch.dtype
    make: Callable[[Tensor, int], FastLinear]


def available_kernels(precision: Precision, device: torch.device) -> list[Kernel]:
    """Return the kernels that run here; the first is taken where none is measured. UsageError for none."""
    on_cpu, kernels = device.type == "cpu", list[Kernel]()
    native = cpu_kernels.load_kernels() if on_cpu else None
    full, half = torch.float32, torch.bfloat16
    if native is not None:
        kernels += [_native_kernel(precision, native, order) for order in ORDERS]
    if precision in {"fp32", "bf16"}:
        dtype = full if precision == "fp32" else half
        if on_cpu and compat.onednn_supports(dtype):
            kernels.append(Kernel("onednn", dtype, lambda weight, rows: OneDNNLinear(weight.to(dtype), rows)))
        kernels.append(Kernel("torch", dtype, lambda weight, _: DenseLinear(weight.to(dtype))))
    elif precision == "int8":
        if has_int8_dynamic_kernel(device):
            kernels.append(Kernel("fbgemm", full, lambda weight, _: Int8DynamicLinear(weight)))
        kernels.append(Kernel("torch", half, lambda weight, _: Int8WeightLinear(weight)))
    elif on_cpu:
        kernels.append(Kernel("torch", full, lambda weight, _: Int4WeightLinear(weight)))
    if not kernels:
        raise UsageError(f"4-bit weights run on the CPU, not on {device.type}: give `precision` int8")
    return kernels


def _native_kernel(precision: Precision, kernels: CPUKernels, order: Order) -> Kernel:
    return Kernel(f"native {order}", torch.float32, lambda weight, _: NativeLinear(weight, precision, kernels, order))


def is_large(model: nn.Module) -> bool:
    """Return whether reading the model's weights decides the time of a step."""
    return sum(weight.numel() for weight in model.parameters()) >= MIN_LARGE_PARAMETERS


def choose_kernel(precision: Precision, model: nn.Module, device: torch.device) -> Kernel:
    """Return the kernel for a model: for a large one on a CPU the fastest, else the first."""
    threads = torch.get_num_threads() if device.type == "cpu" and is_large(model) else None
    return _choose(precision, device, threads, cpu_kernels.is_enabled())


@cache
def _choose(precision: Precision, device: torch.device, threads: int | None, native: bool) -> Kernel:
    kernels = {kernel.name: kernel for kernel in available_kernels(precision, device)}
    assert native or not any(name.startswith("native") for name in kernels)
    if threads is None or len(kernels) == 1:
        return next(iter(kernels.values()))
    facts = cpu_kernels.cpu_name(), torch.backends.cpu.get_cpu_capability(), threads, torch.__version__, *kernels
    key = f"{precision}: {', '.join(map(str, facts))}"
    name = _read_choices().get(key)
    if name not in kernels:
        seconds = {kernel.name: measure_kernel(kernel, precision) for kernel in kernels.values()}
        name = min(seconds, key=lambda kernel: seconds[kernel])
        logger.debug("%s: %s of %s", precision, name, seconds)
        _write_choice(key, name)
    return kernels[name]


@torch.inference_mode()
def measure_kernel(kernel: Kernel, precision: Precision) -> float:
    """Return the seconds in which `kernel` multiplies two vectors with `MEASURED_BYTES` of weights."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(SHAPE, generator=generator), torch.randn(ROWS, SHAPE[1], generator=generator)
    count = round(MEASURED_BYTES / WEIGHT_BYTES[precision] / weight.numel())
    layers = [kernel.make(weight, ROWS) for _ in range(count)]
    x, fastest = x.to(kernel.dtype), float("inf")
    for _ in range(PASSES):
        start = time.perf_counter()
        for layer in layers:
            layer(x)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def _read_choices() -> dict[str, str]:
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        choices = json.loads((cpu_kernels.kernel_folder() / "choices.json").read_text(encoding="utf-8"))
        return choices if isinstance(choices, dict) else {}
    return {}


def _write_choice(key: str, name: str) -> None:
    with suppress(OSError, RuntimeError):  # a cache that cannot be written is measured again
        choices = json.dumps(_read_choices() | {key: name}, indent=1)
        with atomic.atomic_write(cpu_kernels.kernel_folder() / "choices.json") as file:
            file.write(choices.encode())
