"""Linear layers of few vectors (R, D) and large weights (O, D), which cost what reading these costs."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from v2m.core import compat
from v2m.core.compat import onednn_ops

Precision = Literal["fp32", "bf16", "int8"]
INT8_MAX = 127.0  # the largest 8-bit number that is used, on either side of 0
MAX_GEMV_ROWS = 32  # vectors up to which reading costs more than multiplying; beyond, 8-bit weights are widened first
KERNEL_ALIGNMENT = 16  # inputs that the kernel for 8-bit weights takes at a time, unchecked


class FastLinear(Protocol):
    """A linear layer without bias, (…, D) → (…, O)."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor) -> Tensor:
        """Multiply and apply a GELU."""
        return functional.gelu(self(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Multiply and add to `residual` (…, O)."""
        return residual + self(x)


def activation_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type that layers of a precision take and give."""
    full = precision == "fp32" or (precision == "int8" and has_int8_dynamic_kernel(device))
    return torch.float32 if full else torch.bfloat16


def make_linear(weight: Tensor, precision: Precision, rows: int) -> FastLinear:
    """Prepare `weight` (O, D) to be multiplied with, mostly by about `rows` vectors at a time."""
    if precision == "int8":
        return Int8DynamicLinear(weight) if has_int8_dynamic_kernel(weight.device) else Int8WeightLinear(weight)
    weight = weight.to(activation_dtype(precision, weight.device))
    if weight.device.type == "cpu" and onednn_ops() is not None:
        return OneDNNLinear(weight, rows)
    return DenseLinear(weight)


class DenseLinear(FastLinear):
    """`weight` (O, D) as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


class OneDNNLinear(FastLinear):
    """`weight` (O, D) in oneDNN's order: read once for 2 or 3 vectors, where MKL reads it once for each."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        ops = onednn_ops()
        assert ops is not None
        self._ops = ops
        self.weight = ops.reorder(weight.contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        return self._ops.linear(x, self.weight, None, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        return self._ops.linear(x, self.weight, None, "gelu", [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._ops.linear_add(x, residual, self.weight, None, "add")


class Int8WeightLinear(FastLinear):
    """`weight` (O, D) as 8-bit numbers with a scale for each output; takes and gives bfloat16."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, scale = quantize_int8(weight)
        self.scale = scale.to(torch.bfloat16)
        self._use_kernel = weight.shape[1] % KERNEL_ALIGNMENT == 0 and has_int8_weight_kernel(weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        vectors = x.reshape(-1, x.shape[-1])
        if len(vectors) > MAX_GEMV_ROWS or not self._use_kernel:
            return functional.linear(x, self.weight.to(x.dtype) * self.scale[:, None])
        return compat.int8_weight_linear(vectors, self.weight, self.scale).view(*x.shape[:-1], -1)


class Int8DynamicLinear(FastLinear):
    """8-bit weights times vectors that are quantized to 8 bits as they come; takes and gives float32.

    `weight` (O, D) has a scale for each output. FBGEMM's kernel has one scale for all vectors: they are brought to
    one length before, so that a vector's result does not depend on its neighbors. It needs VNNI: older instructions
    saturate in between.
    """

    def __init__(self, weight: Tensor) -> None:
        quantized = compat.quantized_weight(*quantize_int8(weight))
        self.weight: Any = torch.ops.quantized.linear_prepack(quantized, None)
        self._linear: Any = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    def __call__(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        return self._linear(x / largest, 1.0 / INT8_MAX, 128, self.weight).mul_(largest)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` (O, D) → int8 of the same shape and scales (O,) float32, whose product is nearest to it."""
    largest = weight.abs().amax(dim=1).float().clamp_min_(torch.finfo(torch.float32).tiny)
    return (weight.float() * (INT8_MAX / largest)[:, None]).round_().to(torch.int8), largest / INT8_MAX


def has_int8_dynamic_kernel(device: torch.device) -> bool:
    """Return whether `Int8DynamicLinear` works on this device."""
    on_cpu = device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
    return on_cpu and compat.cpu_has_vnni()


def has_int8_weight_kernel(device: torch.device) -> bool:
    """Return whether PyTorch has a kernel for 8-bit weights on this device."""
    ones = torch.ones(KERNEL_ALIGNMENT, KERNEL_ALIGNMENT, dtype=torch.bfloat16, device=device)
    try:
        compat.int8_weight_linear(ones, ones.to(torch.int8), ones[0])
    except (NotImplementedError, RuntimeError):
        return False
    return True
