"""The U-Net's layers in their fast form on a CPU: matrix products with weights in oneDNN's order.

A convolution of channels that come last is a product with windows of consecutive frames, which runs as fast as the
product itself; one of kernel 3 takes two thirds of the multiplications by Winograd's algorithm F(2, 3) (Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", 2016). Cross-attention is in `packed_attention`.

B batch, L frames, C channels, O output channels, K kernel size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from v2m.core import compat
from v2m.core.compat import OneDNNOps
from v2m.generators.sonique.unet import PaddedConv1d, Upsample1d

ROWS = 1024  # vectors that weights are ordered for; others take hardly longer
INT8_MAX = 126.0  # the largest 8-bit number that is used, on either side of 0: bfloat16 may round it up
ZERO_POINT = 128  # unsigned value of 0, as oneDNN's kernel takes vectors


def pack_layer(layer: nn.Module, ops: OneDNNOps, dtype: torch.dtype, *, int8: bool) -> nn.Module | None:
    """Return a linear layer or convolution in its packed form; None for other modules.

    It takes and gives `dtype`. With `int8`, linear layers have 8-bit weights.
    """
    if isinstance(layer, nn.Linear):
        if int8:
            return Int8Linear(layer.weight, layer.bias, dtype)
        return PackedLinear(layer.weight, layer.bias, ops, dtype)
    if isinstance(layer, PaddedConv1d):
        winograd = layer.kernel_size == (3,) and layer.stride == (1,)
        return WinogradConv(layer, ops, dtype) if winograd else WindowConv(layer, ops, dtype)
    return WindowUpsample(layer, ops, dtype) if isinstance(layer, Upsample1d) else None


class PackedLinear(nn.Module):
    """Linear layer of `weight` (O, C); float32 weights are rounded to `dtype` here."""

    def __init__(self, weight: Tensor, bias: Tensor | None, ops: OneDNNOps, dtype: torch.dtype) -> None:
        super().__init__()
        self._ops = ops
        self._weight = ops.reorder(weight.detach().to(dtype).contiguous(), ROWS)  # opaque: no parameter
        self._bias = None if bias is None else bias.detach().to(dtype, copy=True)

    def forward(self, x: Tensor) -> Tensor:
        return self._ops.linear(x, self._weight, self._bias, "none", [], "")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Multiply and add `other`, rounding once."""
        return self._ops.linear_add(x, other, self._weight, self._bias, "add")


class WindowConv(nn.Module):
    """`PaddedConv1d` as a product with windows (B, L', K · C)."""

    def __init__(self, conv: PaddedConv1d, ops: OneDNNOps, dtype: torch.dtype) -> None:
        super().__init__()
        self._kernel_size, self._stride = conv.kernel_size[0], conv.stride[0]
        self._pad = conv.pad
        self._linear = PackedLinear(conv.weight.transpose(1, 2).flatten(1), conv.bias, ops, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(windows(self._pad(x), self._kernel_size, self._stride))


class WindowUpsample(nn.Module):
    """`Upsample1d` as a product with pairs of frames: each gives the `factor` frames that both reach."""

    def __init__(self, conv: Upsample1d, ops: OneDNNOps, dtype: torch.dtype) -> None:
        super().__init__()
        factor = conv.stride[0]
        late, early = conv.weight.split(factor, dim=2)  # of a pair's second frame, and of its first
        weight = torch.cat([early, late]).permute(2, 1, 0).flatten(0, 1)  # (factor · O, 2 C)
        bias = None if conv.bias is None else conv.bias.repeat(factor)
        self._factor, self._linear = factor, PackedLinear(weight, bias, ops, dtype)

    def forward(self, x: Tensor) -> Tensor:
        pairs, factor = windows(pad(x, (0, 0, 1, 1)), 2, 1), self._factor
        out = self._linear(pairs).unflatten(2, (factor, -1)).flatten(1, 2)  # (B, (L + 1) factor, O)
        return out[:, factor - factor // 2 : out.shape[1] - factor // 2]


class WinogradConv(nn.Module):
    """`PaddedConv1d` of kernel 3, stride 1 by Winograd's F(2, 3): four products for two frames, not six."""

    def __init__(self, conv: PaddedConv1d, ops: OneDNNOps, dtype: torch.dtype) -> None:
        super().__init__()
        first, middle, last = conv.weight.detach().unbind(2)  # (O, C) each
        outer = first + last
        weights = first, (outer + middle) / 2, (outer - middle) / 2, -last
        biases = None, conv.bias, None, None
        self._products = [PackedLinear(weight, bias, ops, dtype) for weight, bias in zip(weights, biases, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        odd = x.shape[1] % 2
        pairs = pad(x, (0, 0, 1, 1 + odd)).unflatten(1, (-1, 2))
        (x_0, x_1), (x_2, x_3) = pairs[:, :-1].unbind(2), pairs[:, 1:].unbind(2)  # (B, L / 2, C) each
        product_0, product_1, product_2, product_3 = self._products
        sum_1, sum_2 = product_1(x_1 + x_2), product_2(x_2 - x_1)
        even = product_0.plus(x_0 - x_2, sum_1 + sum_2)
        out = torch.stack([even, product_3.plus(x_1 - x_3, sum_1.sub_(sum_2))], dim=2).flatten(1, 2)
        return out[:, : x.shape[1]]


class Int8Linear(nn.Module):
    """Linear layer of 8-bit weights and vectors, each scaled to its largest; takes and gives `dtype`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        ops = compat.onednn_int8_ops()
        assert ops is not None
        largest = weight.detach().abs().amax(dim=1).float().clamp_min_(torch.finfo(torch.float32).tiny)
        rounded = (weight.detach().float() * (INT8_MAX / largest)[:, None]).round_().to(torch.int8)
        self._ops, self._dtype = ops, dtype
        self._weight = ops.reorder(rounded, [ROWS, weight.shape[1]])
        self._scale = largest / INT8_MAX**2
        self._zero_points = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = None if bias is None else bias.detach().to(dtype, copy=True)

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(x.dtype).tiny)
        vectors = (x * (INT8_MAX / largest)).add_(ZERO_POINT).round_().to(torch.uint8)
        out = self.multiply(vectors).mul_(largest)
        return out if self._bias is None else out.add_(self._bias)

    def multiply(self, vectors: Tensor) -> Tensor:
        """Multiply unsigned 8-bit `vectors` (…, C), without bias."""
        return self._ops.linear(
            vectors, 1.0, ZERO_POINT, self._weight, self._scale, self._zero_points,
            None, 1.0, 0, self._dtype, "none", [], "",
        )  # fmt: skip


def windows(x: Tensor, size: int, stride: int) -> Tensor:
    """Windows (B, L', `size` · C) of consecutive frames of `x` (B, L, C)."""
    if size == 1:
        return x[:, ::stride]
    return x.unfold(1, size, stride).mT.flatten(2)
