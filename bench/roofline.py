"""Measured limits of a device: bytes copied, and operations of a matrix product, a second."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

COPY_BYTES = {"cuda": 2**32, "cpu": 2**28}  # of each of two blocks, far more than the caches hold
PRODUCT_SIZE = {"cuda": 8192, "cpu": 2048}
SMALL_COPY_BYTES, SMALL_PRODUCT_SIZE = 2**22, 256


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """Return seconds after all queued work of the device; on a CPU of the processor, in all threads."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def median_seconds(function: Callable[[], Any], device: torch.device, times: int, calls: int = 1) -> float:
    """Return the median seconds of a call, of `times` groups of `calls` after one warm-up call."""
    function()
    seconds: list[float] = []
    for _ in range(times):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize(device)
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds)


def copy_bandwidth(device: torch.device, small: bool = False) -> float:
    """Return the bytes read and written per second by a copy, the best of a few."""
    count = (SMALL_COPY_BYTES if small else COPY_BYTES[device.type]) // 4
    block = torch.ones(count, device=device)  # not zeros, which the system would lay on one page
    target = torch.empty_like(block)
    best = min(median_seconds(lambda: target.copy_(block), device, 1) for _ in range(7))
    return 8 * count / best


def product_rate(device: torch.device, dtype: torch.dtype, small: bool = False, size: int | None = None) -> float:
    """Return the operations per second of a product of two square random matrices, the best of a few.

    On the CPU a second is one of the processor's: the rate of a thread, whatever else runs.
    """
    size = size or (SMALL_PRODUCT_SIZE if small else PRODUCT_SIZE[device.type])
    left, right = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    calls, best = 10 if device.type == "cuda" or small else 2, float("inf")
    torch.mm(left, right, out=out)
    for _ in range(5):
        start = clock(device)
        for _ in range(calls):
            torch.mm(left, right, out=out)
        best = min(best, (clock(device) - start) / calls)
    return 2 * size**3 / best


def launch_seconds(device: torch.device, count: int = 500) -> float:
    """Return the seconds of one tiny kernel among many: what a kernel costs at least without a graph."""
    x = torch.ones(1, device=device)

    def add() -> None:
        for _ in range(count):
            x.add_(1.0)

    return median_seconds(add, device, 5) / count


def describe(device: torch.device) -> dict[str, Any]:
    """Return the names and versions of the device, its driver and the libraries."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type != "cuda":
        return {"device": processor_name(), **versions}
    properties = torch.cuda.get_device_properties(device)
    sizes = {"memory_gb": round(properties.total_memory / 1e9, 1), "processors": properties.multi_processor_count}
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    cudnn = torch.backends.cudnn.version()
    names = {"device": torch.cuda.get_device_name(device), "capability": capability, "driver": driver_version()}
    return {**names, **sizes, **versions, "cudnn": cudnn}


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None where its own command does not say it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def processor_name() -> str:
    """Return the processor's name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
