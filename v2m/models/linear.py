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
_multiplied: Any = torch.ops.aten._weight_int8pack_mm
MANY = 32  # vectors from which multiplying costs more than reading: 8-bit weights are then widened first


class Product(Protocol):
    """A linear layer without bias."""

    def __call__(self, x: Tensor) -> Tensor:
        """(…, D) → (…, O)."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """(…, D) → (…, O), through a GELU."""
        ...

    def plus(self, x: Tensor, before: Tensor) -> Tensor:
        """(…, D) and (…, O) → (…, O): `before` and the product together."""
        ...


def carried(precision: Precision) -> torch.dtype:
    """The type of what the products take and give."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


def product(weight: Tensor, precision: Precision, rows: int) -> Product:
    """`weight` (O, D) made ready to be multiplied, mostly with `rows` vectors at a time."""
    if precision == "int8":
        return Eighth(weight)
    weight = weight.to(carried(precision))
    if weight.device.type == "cpu" and packing() is not None:
        return Packed(weight, rows)
    return Plain(weight)


class Plain:
    """`weight` (O, D) as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        return functional.gelu(self(x))

    def plus(self, x: Tensor, before: Tensor) -> Tensor:
        return before + self(x)


class Packed:
    """`weight` (O, D) in oneDNN's own order: MKL reads it once for each of two or three vectors, oneDNN once."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        found = packing()
        assert found is not None
        reorder, self._linear, self._linear_and = found
        self.weight = reorder(weight.contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        return self._linear(x, self.weight, None, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        return self._linear(x, self.weight, None, "gelu", [], "none")

    def plus(self, x: Tensor, before: Tensor) -> Tensor:
        return self._linear_and(x, before, self.weight, None, "add")


class Eighth:
    """`weight` (O, D) as 8-bit numbers with a scale for each output; what it takes and gives is bfloat16."""

    def __init__(self, weight: Tensor) -> None:
        largest = weight.abs().amax(dim=1, keepdim=True).float().clamp_min_(torch.finfo(torch.float32).tiny)
        self.weight = (weight.float() * (127.0 / largest)).round_().to(torch.int8)
        self.scale = (largest[:, 0] / 127.0).to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        vectors = x.reshape(-1, x.shape[-1])
        if len(vectors) > MANY:
            return functional.linear(x, self.weight.to(x.dtype) * self.scale[:, None])
        return _multiplied(vectors, self.weight, self.scale).view(*x.shape[:-1], -1)

    def gelu(self, x: Tensor) -> Tensor:
        return functional.gelu(self(x))

    def plus(self, x: Tensor, before: Tensor) -> Tensor:
        return before + self(x)


def packing() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]] | None:
    """What reorders a weight, multiplies with it, and adds to that; None where PyTorch is built without oneDNN."""
    own: Any = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(own, "_linear_pointwise"):
        return None
    return own._reorder_linear_weight, own._linear_pointwise, own._linear_pointwise.binary
