"""CPU kernels of `cpu_kernels.c`: built once by the C compiler of this machine, called by ctypes.

A decoding step reads all weights and all of the cache to do little with them. PyTorch's operators reach a third to
three quarters of the memory's speed at one to four vectors, depending on processor and precision, and none of them
attends over a cache in 8 bits. These kernels do one thing: they stream packed numbers once. Where there is no compiler,
or on another system than Linux, `load_kernels` returns None and PyTorch's operators are used.

R vectors, D inputs, O outputs, G key/value heads, n query heads of each, d dimension of a head, L positions reserved,
e positions attended to.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import math
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

WeightKind = Literal["fp32", "bf16", "int8", "int4"]
Order = Literal["rows", "stream"]  # of weights in memory, see cpu_kernels.c
KINDS: dict[WeightKind, int] = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
ORDERS: dict[Order, int] = {"rows": 0, "stream": 1}
SCALE_TYPES = dict.fromkeys(KINDS, torch.float32) | {"int4": torch.bfloat16}
BLOCK = 128  # inputs, as in cpu_kernels.c
GROUP = 32  # inputs that share a scale
TILE = 16  # outputs that a thread takes at a time
POSITIONS = 16  # of the cache that are scored at once
# PyTorch's names of instruction sets, which ATEN_CPU_CAPABILITY lowers; others take all that the processor has
ARCHITECTURES = {"AVX2": "x86-64-v3", "DEFAULT": "x86-64-v2"}
COMPILE_S = 60
CACHE_LINE, PAGE_BYTES = 64, 2**21  # a large page
SLAB_BYTES = 32 * PAGE_BYTES
SWITCH = "V2M_CPU_KERNELS"
SOURCE = Path(__file__).with_suffix(".c")

logger = logging.getLogger(__name__)


def _fields(integers: str = "", pointers: str = "", numbers: str = "") -> list[tuple[str, Any]]:
    types = {ctypes.c_int64: integers, ctypes.c_void_p: pointers, ctypes.c_double: numbers}
    return [(name, kind) for kind, names in types.items() for name in names.split()]


class WeightStruct(ctypes.Structure):
    """`Weight` of cpu_kernels.c."""

    _fields_ = _fields("kind order outputs inputs", "packed scales")


class NormStruct(ctypes.Structure):
    """`Norm` of cpu_kernels.c."""

    _fields_ = _fields(pointers="weight bias", numbers="epsilon")


class CacheStruct(ctypes.Structure):
    """`Cache` of cpu_kernels.c."""

    _fields_ = [*_fields(pointers="keys key_scales values value_scales"), *_fields("heads dim length")]


class PackedWeight:
    """A weight (O, D) in the kernels' order.

    Numbers in 8 bits have a scale for each output, in 4 bits for each 32.
    """

    def __init__(self, kind: WeightKind, order: Order, shape: tuple[int, int], block_bytes: int) -> None:
        outputs, inputs = (_round_up(size, multiple) for size, multiple in zip(shape, (TILE, BLOCK), strict=True))
        count = outputs * inputs // BLOCK
        self.kind, self.shape = kind, shape
        self.data = allocate((count, block_bytes), torch.uint8)
        self.scales = allocate((count, BLOCK // GROUP) if kind == "int4" else (outputs,), SCALE_TYPES[kind])
        self.struct = WeightStruct(KINDS[kind], ORDERS[order], *shape, self.data.data_ptr(), self.scales.data_ptr())


class LayerNorm:
    """Weights and biases (D,) float32 of a layer norm."""

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self.weight, self.bias, self.epsilon = weight, bias, epsilon
        self.struct = NormStruct(weight.data_ptr(), bias.data_ptr(), epsilon)


class CPUKernels:
    """The compiled functions. Tensors are contiguous and on the CPU; vectors are float32."""

    def __init__(self, library: ctypes.CDLL) -> None:
        integer, pointer, flag = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
        signatures = {
            "pack_weight": [pointer, pointer, flag],
            "unpack_weight": [pointer, pointer, flag, flag],
            "linear": [pointer, pointer, integer, pointer, flag, pointer, pointer, flag],
            "write_cache": [pointer, pointer, pointer, integer, integer, integer, flag],
            "attention": [*[pointer, pointer, integer] * 2, pointer, *[integer] * 3, pointer, flag],
            "decode_step": [pointer, integer, pointer, pointer, pointer, integer, pointer, integer, pointer, flag],
        }
        for name, arguments in signatures.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        library.block_bytes.argtypes, library.block_bytes.restype = [flag], integer
        self.library: Any = library

    def pack(self, weight: Tensor, kind: WeightKind, order: Order = "rows") -> PackedWeight:
        """Round a weight (O, D) to `kind`, nearest, and lay it out."""
        source = weight.detach().float().contiguous()
        shape = source.shape[0], source.shape[1]
        packed = PackedWeight(kind, order, shape, self.library.block_bytes(KINDS[kind]))
        self.library.pack_weight(reference(packed), source.data_ptr(), torch.get_num_threads())
        return packed

    def unpack(self, weight: PackedWeight, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the rounded weight, (O, D) float32 or bfloat16."""
        assert dtype in {torch.float32, torch.bfloat16}, dtype
        out = torch.empty(weight.shape, dtype=dtype)
        self.library.unpack_weight(reference(weight), out.data_ptr(), dtype is torch.bfloat16, torch.get_num_threads())
        return out

    def linear(
        self,
        x: Tensor,
        weight: PackedWeight,
        *,
        norm: LayerNorm | None = None,
        gelu: bool = False,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Multiply (R, D) with a weight: (R, O).

        `norm` is applied before, a GELU after, then `residual` (R, O) is added.
        """
        out = torch.empty(x.shape[0], weight.shape[0])
        self.library.linear(
            reference(weight), x.data_ptr(), x.shape[0], None if norm is None else reference(norm), gelu,
            pointer_to(residual), out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out

    def write_cache(self, cache: QuantizedKV, key: Tensor, value: Tensor, start: int) -> None:
        """Round keys and values (R, G, q, d) into positions `start` … of a cache."""
        self.library.write_cache(
            reference(cache), key.data_ptr(), value.data_ptr(), key.shape[0], key.shape[2], start,
            torch.get_num_threads(),
        )  # fmt: skip

    def attention(
        self,
        query: Tensor,
        cache: QuantizedKV,
        length: int,
        *,
        new: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend with queries (R, G · n, d), divided by √d, over `length` positions: (R, G · n, d).

        The key and value (R, G, d) of `new` are first written at the last of them. `mask` (R, e) is added to scores.
        Rows may lie apart, as parts of one tensor do.
        """
        rows, heads, _ = query.shape
        out = torch.empty(query.shape)
        key, value, stride = (
            (None, None, 0) if new is None else (new[0].data_ptr(), new[1].data_ptr(), new[0].stride(0))
        )
        self.library.attention(
            reference(cache), query.data_ptr(), query.stride(0), key, value, stride, pointer_to(mask), rows,
            heads // cache.struct.heads, length, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out


def reference(value: PackedWeight | LayerNorm | QuantizedKV) -> Any:
    return ctypes.byref(value.struct)


def pointer_to(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class QuantizedKV:
    """Keys and values of one layer in 8 bits, (R, G, L, d), with a float32 scale for each head's position."""

    def __init__(self, rows: int, heads: int, length: int, dim: int) -> None:
        assert dim % POSITIONS == 0, f"heads of {dim} numbers"
        length = _round_up(length, POSITIONS)
        size = (rows, heads, length)
        self.keys, self.values = allocate((2, *size, dim), torch.uint8).unbind()
        self.key_scales, self.value_scales = allocate((2, *size), torch.float32).unbind()
        tensors = (self.keys, self.key_scales, self.values, self.value_scales)
        self.struct = CacheStruct(*(tensor.data_ptr() for tensor in tensors), heads, dim, length)


def allocate(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return zeros that begin at a cache line, in large pages where the system has them.

    Streams of weights cross a page of 4 kB every few hundred nanoseconds, and looking up the next one takes a third of
    the time.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > SLAB_BYTES // 4:
        return _map_pages(size)[:size].view(dtype).view(*shape)
    start = _round_up(_slab.used, CACHE_LINE)
    if _slab.memory is None or start + size > SLAB_BYTES:
        _slab.memory, start = _map_pages(SLAB_BYTES), 0
    _slab.used = start + size
    return _slab.memory[start : start + size].view(dtype).view(*shape)


class _Slab(threading.local):
    """Memory that small tensors share; it lives as long as one of them."""

    memory: Tensor | None = None
    used = 0


_slab = _Slab()


def _map_pages(size: int) -> Tensor:
    pages = mmap.mmap(-1, _round_up(size, PAGE_BYTES) + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=torch.uint8)
    return memory[-memory.data_ptr() % PAGE_BYTES :]


def load_kernels() -> CPUKernels | None:
    """Return the kernels, built if need be; None where they cannot be, or where V2M_CPU_KERNELS is 0."""
    return _load(torch.backends.cpu.get_cpu_capability()) if is_enabled() else None


def is_enabled() -> bool:
    return os.environ.get(SWITCH) != "0"


@cache
def _load(capability: str) -> CPUKernels | None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if not sys.platform.startswith("linux") or compiler is None:
        return None
    x86 = platform.machine() == "x86_64"
    architecture = ARCHITECTURES.get(capability, "native") if x86 else "native"
    source = SOURCE.read_text(encoding="utf-8")
    command = [compiler, "-O3", f"-march={architecture}", "-std=gnu11", "-fopenmp", "-w", "-shared", "-fPIC"]
    try:
        return CPUKernels(ctypes.CDLL(str(_build(source, command))))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
        logger.debug("no CPU kernels: %s", error)
        return None


def _build(source: str, command: list[str]) -> Path:
    """Compile `source` into the user's cache, unless it is there."""
    facts = [source, *command, Path(command[0]).resolve().name, cpu_name()]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]
    library = kernel_folder() / f"cpu-kernels-{digest}.so"
    if not library.is_file():
        library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            result = Path(folder) / library.name
            arguments = [*command, "-x", "c", "-", "-o", str(result), "-lm"]
            subprocess.run(arguments, input=source.encode(), check=True, capture_output=True, timeout=COMPILE_S)
            result.replace(library)
    return library


def kernel_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "v2m" / "kernels"


@cache
def cpu_name() -> str:
    """Return the processor's model and instruction sets, in a few letters."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in facts.items()}
    flags = hashlib.sha256(names.get("flags", names.get("Features", "")).encode()).hexdigest()[:8]
    return f"{names.get('model name', platform.machine())} {flags}"


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
