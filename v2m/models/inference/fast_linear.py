"""Products of few vectors with large weights, which cost what reading the weights costs.

R vectors, D inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Precision = Literal["fp32", "bf16", "int8"]
INT8_MAX = 127.0  # the largest 8-bit number that is used, either side of 0
MAX_GEMV_ROWS = 32  # vectors from which multiplying costs more than reading: 8-bit weights are then widened first
KERNEL_ALIGNMENT = 16  # inputs that the kernel for 8-bit weights takes at a time, unchecked


class FastLinear(Protocol):
    """A linear layer without bias."""

    def __call__(self, x: Tensor) -> Tensor:
        """(…, D) → (…, O)."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """(…, D) → (…, O), through a GELU."""
        return functional.gelu(self(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """(…, D) and (…, O) → (…, O): `before` and the product together."""
        return residual + self(x)


def activation_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of what the products take and give."""
    plain = precision == "fp32" or (precision == "int8" and has_int8_dynamic_kernel(device))
    return torch.float32 if plain else torch.bfloat16


def make_linear(weight: Tensor, precision: Precision, rows: int) -> FastLinear:
    """`weight` (O, D) made ready to be multiplied, mostly with about `rows` vectors at a time."""
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
    """`weight` (O, D) in oneDNN's own order: MKL reads it once for each of two or three vectors, oneDNN once."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        found = onednn_ops()
        assert found is not None
        reorder, self._linear, self._linear_and = found
        self.weight = reorder(weight.contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        return self._linear(x, self.weight, None, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        return self._linear(x, self.weight, None, "gelu", [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._linear_and(x, residual, self.weight, None, "add")


class Int8WeightLinear(FastLinear):
    """`weight` (O, D) as 8-bit numbers with a scale for each output; what it takes and gives is bfloat16."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, scale = quantize_int8(weight)
        self.scale = scale.to(torch.bfloat16)
        self._whole = weight.shape[1] % KERNEL_ALIGNMENT == 0 and has_int8_weight_kernel(weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        vectors = x.reshape(-1, x.shape[-1])
        if len(vectors) > MAX_GEMV_ROWS or not self._whole:
            return functional.linear(x, self.weight.to(x.dtype) * self.scale[:, None])
        return torch.ops.aten._weight_int8pack_mm(vectors, self.weight, self.scale).view(*x.shape[:-1], -1)


class Int8DynamicLinear(FastLinear):
    """`weight` (O, D) as 8-bit numbers with a scale for each output, multiplied with vectors that are rounded to 8 bits
    with a scale for each; what it takes and gives is float32.

    FBGEMM's kernel knows one scale for all vectors. They are brought to one length before, so that what a vector gives
    does not depend on its neighbors. It needs VNNI: older instructions saturate in between.
    """

    def __init__(self, weight: Tensor) -> None:
        whole, scale = quantize_int8(weight)
        none = torch.zeros_like(scale, dtype=torch.int64)
        quantized = torch.ops.aten._make_per_channel_quantized_tensor(whole, scale.double(), none, 0)
        self.weight: Any = torch.ops.quantized.linear_prepack(quantized, None)
        self._linear: Any = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    def __call__(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        return self._linear(x / largest, 1.0 / INT8_MAX, 128, self.weight).mul_(largest)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` (O, D) → int8 of the same shape and scales (O,) float32, which together are nearest to it."""
    largest = weight.abs().amax(dim=1).float().clamp_min_(torch.finfo(torch.float32).tiny)
    return (weight.float() * (INT8_MAX / largest)[:, None]).round_().to(torch.int8), largest / INT8_MAX


def onednn_ops() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]] | None:
    """What reorders a weight, multiplies with it, and adds to that; None where PyTorch is built without oneDNN."""
    own: Any = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(own, "_linear_pointwise"):
        return None
    return own._reorder_linear_weight, own._linear_pointwise, own._linear_pointwise.binary


def has_int8_dynamic_kernel(device: torch.device) -> bool:
    """Whether `Rounded` works here."""
    return device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines and _has_vnni()


def has_int8_weight_kernel(device: torch.device) -> bool:
    """Whether PyTorch has a kernel for 8-bit weights on this device."""
    ones = torch.ones(KERNEL_ALIGNMENT, KERNEL_ALIGNMENT, dtype=torch.bfloat16, device=device)
    try:
        torch.ops.aten._weight_int8pack_mm(ones, ones.to(torch.int8), ones[0])
    except (NotImplementedError, RuntimeError):
        return False
    return True


def _has_vnni() -> bool:
    ask: Callable[[], bool] | None = getattr(torch.cpu, "_is_vnni_supported", None)
    return ask is not None and ask()
