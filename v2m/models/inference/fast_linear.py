"""Linear layers of few vectors (R, D) and large weights (O, D), which cost what reading these costs."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.core import compat
from v2m.core.compat import onednn_ops
from v2m.models.inference.cpu_kernels import GROUP, CPUKernels, LayerNorm, Order

Precision = Literal["fp32", "bf16", "int8", "int4"]
INT8_MAX = 127.0  # the largest 8-bit number that is used, on either side of 0
INT4_OFFSET = 8  # of the unsigned 4-bit numbers that weights are stored in
MAX_GEMV_ROWS = 32  # vectors up to which reading costs more than multiplying; beyond, 8-bit weights are widened first
KERNEL_ALIGNMENT = 16  # inputs of 8-bit, and outputs of 4-bit weights that PyTorch's kernels take at a time


class CastLayerNorm:
    """A layer norm with its weights in another type."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.epsilon = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        self.native = LayerNorm(self.weight, self.bias, self.epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.shape, self.weight, self.bias, self.epsilon)


class FastLinear(Protocol):
    """A linear layer without bias, (…, D) → (…, O). `norm` is applied to its input."""

    def __call__(self, x: Tensor, norm: CastLayerNorm | None = None) -> Tensor:
        """Multiply."""
        return self.multiply(x if norm is None else norm(x))

    def multiply(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor, norm: CastLayerNorm | None = None) -> Tensor:
        """Multiply and apply a GELU."""
        return functional.gelu(self(x, norm))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Multiply and add to `residual` (…, O)."""
        return residual + self(x)


class NativeLinear(FastLinear):
    """`weight` (O, D) in the order of `kernels`, rounded to `precision`; takes and gives float32.

    Vectors are not rounded beside weights of fp32 and bf16. Beside those of int8 and int4 they are, to 8 bits with a
    scale for each 32 numbers. `wide_dtype` is of products with many vectors, for which the weight is unpacked.
    """

    def __init__(self, weight: Tensor, precision: Precision, kernels: CPUKernels, order: Order = "rows") -> None:
        self._kernels, self.weight = kernels, kernels.pack(weight, precision, order)
        bf16 = precision != "fp32" and compat.cpu_has_avx512_bf16()
        self.wide_dtype = torch.bfloat16 if bf16 else torch.float32

    def __call__(self, x: Tensor, norm: CastLayerNorm | None = None) -> Tensor:
        return self._apply(x, norm=norm)

    def multiply(self, x: Tensor) -> Tensor:
        return self._apply(x)

    def gelu(self, x: Tensor, norm: CastLayerNorm | None = None) -> Tensor:
        return self._apply(x, norm=norm, gelu=True)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._apply(x, residual=residual)

    def _apply(
        self, x: Tensor, *, norm: CastLayerNorm | None = None, gelu: bool = False, residual: Tensor | None = None
    ) -> Tensor:
        inputs, shape = x.shape[-1], (*x.shape[:-1], self.weight.shape[0])
        if x.numel() <= MAX_GEMV_ROWS * inputs:
            vectors, added = x.contiguous().view(-1, inputs), None if residual is None else residual.contiguous()
            native = None if norm is None else norm.native
            return self._kernels.linear(vectors, self.weight, norm=native, gelu=gelu, residual=added).view(shape)
        weight = self._kernels.unpack(self.weight, self.wide_dtype)
        out = functional.linear((x if norm is None else norm(x)).to(self.wide_dtype), weight).float()
        out = functional.gelu(out) if gelu else out
        return out if residual is None else out + residual


class DenseLinear(FastLinear):
    """`weight` (O, D) as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def multiply(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


class OneDNNLinear(FastLinear):
    """`weight` (O, D) in oneDNN's order: read once for 2 or 3 vectors, where MKL reads it once for each."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        ops = onednn_ops()
        assert ops is not None
        self._ops = ops
        self.weight = ops.reorder(weight.contiguous(), rows)

    def multiply(self, x: Tensor) -> Tensor:
        return self._ops.linear(x, self.weight, None, "none", [], "")

    def gelu(self, x: Tensor, norm: CastLayerNorm | None = None) -> Tensor:
        return self._ops.linear(x if norm is None else norm(x), self.weight, None, "gelu", [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._ops.linear_add(x, residual, self.weight, None, "add")


class Int8WeightLinear(FastLinear):
    """`weight` (O, D) as 8-bit numbers with a scale for each output; takes and gives bfloat16."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, scale = quantize_int8(weight)
        self.scale = scale.to(torch.bfloat16)
        self._use_kernel = weight.shape[1] % KERNEL_ALIGNMENT == 0 and has_int8_weight_kernel(weight.device)

    def multiply(self, x: Tensor) -> Tensor:
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

    def multiply(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        return self._linear(x / largest, 1.0 / INT8_MAX, 128, self.weight).mul_(largest)


class Int4WeightLinear(FastLinear):
    """`weight` (O, D) as 4-bit numbers with a scale for each 32 inputs, by PyTorch's kernel; in float32.

    Inputs and outputs are padded with zeros to what the kernel takes.
    """

    def __init__(self, weight: Tensor) -> None:
        self.num_outputs, inputs = weight.shape
        self._padding = (0, -inputs % GROUP)
        padded = functional.pad(weight.float(), (*self._padding, 0, -self.num_outputs % KERNEL_ALIGNMENT))
        values, scales = quantize_int4(padded)
        self._weight = compat.pack_int4_weight(values.to(torch.int32) + INT4_OFFSET)
        self._scales = torch.stack([scales.T, torch.zeros_like(scales.T)], dim=-1).contiguous()

    def multiply(self, x: Tensor) -> Tensor:
        vectors = functional.pad(x.reshape(-1, x.shape[-1]), self._padding)
        out = compat.int4_weight_linear(vectors, self._weight, GROUP, self._scales)
        return out[:, : self.num_outputs].reshape(*x.shape[:-1], -1)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` (O, D) → int8 of the same shape and scales (O,) float32, whose product is nearest to it."""
    largest = weight.abs().amax(dim=1).float().clamp_min_(torch.finfo(torch.float32).tiny)
    return (weight.float() * (INT8_MAX / largest)[:, None]).round_().to(torch.int8), largest / INT8_MAX


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` (O, D) → −8 … 7 as int8 of the same shape, and scales (O, D / 32) float32.

    The number of the largest magnitude in a group becomes −8, so that all of the range is used.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))
    extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scales = torch.where(extreme == 0, torch.ones_like(extreme), extreme / -INT4_OFFSET)
    values = (groups / scales).round_().clamp_(-INT4_OFFSET, INT4_OFFSET - 1).to(torch.int8)
    return values.flatten(1), scales[..., 0]


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
