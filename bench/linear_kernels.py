"""Speed at which the linear kernels read weights on this CPU: `uv run python -m bench.linear_kernels`.

Every kernel of every precision multiplies two vectors with more weights than the processor's caches hold. Its
gigabytes a second, scales included, stand beside those of a sum over 512 MiB by all threads, the memory's speed.
Kernels and memory are measured in turn, and medians are given. `--capabilities` repeats this in processes of their own
with PyTorch's, oneDNN's and our kernels held to older instruction sets. Last line: one JSON object, with the share of
the memory's speed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import torch

from bench.lm_decoding import bandwidth
from v2m.models.inference import kernel_choice
from v2m.models.inference.cpu_kernels import cpu_name
from v2m.models.inference.fast_linear import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")
ONEDNN_ISA = {"avx512": "DEFAULT", "avx2": "AVX2"}
NATIVE_INT4_BYTES = 0.5625  # a scale of 2 bytes for 32 weights
TORCH_INT4_BYTES = 0.75  # a scale and an offset of 4 bytes each


def measure(times: int) -> dict[str, Any]:
    """Return gigabytes a second of each kernel, by "precision kernel", and of the memory."""
    device, rates = torch.device("cpu"), dict[str, list[float]]()
    for _ in range(times):
        rates.setdefault("memory", []).append(bandwidth() / 1e9)
        for precision in PRECISIONS:
            size = kernel_choice.WEIGHT_BYTES[precision]
            read = kernel_choice.MEASURED_BYTES / size  # weights
            for kernel in kernel_choice.available_kernels(precision, device):
                if precision == "int4":
                    size = NATIVE_INT4_BYTES if kernel.name.startswith("native") else TORCH_INT4_BYTES
                seconds = kernel_choice.measure_kernel(kernel, precision)
                rates.setdefault(f"{precision} {kernel.name}", []).append(read * size / seconds / 1e9)
    return {name: round(statistics.median(values), 1) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--capabilities", choices=tuple(ONEDNN_ISA), nargs="+")
    args = parser.parse_args()
    if args.capabilities:
        results: dict[str, Any] = {}
        for name in args.capabilities:
            variables = {**os.environ, "ATEN_CPU_CAPABILITY": name, "ONEDNN_MAX_CPU_ISA": ONEDNN_ISA[name]}
            command = [sys.executable, "-m", "bench.linear_kernels", f"--times={args.times}"]
            result = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
            results[name] = json.loads(result.stdout.splitlines()[-1])
            print(name, result.stdout, flush=True)
        print(json.dumps(results))
        return
    rates = measure(args.times)
    shares = {name: round(rate / rates["memory"], 2) for name, rate in rates.items() if name != "memory"}
    for name, rate in rates.items():
        print(f"{name:16} {rate:6.1f} GB/s")
    facts = {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    print(json.dumps({"gb_s": rates, "share_of_memory": shares, "processor": cpu_name(), **facts}))


if __name__ == "__main__":
    main()
