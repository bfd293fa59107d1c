"""Linear layers with packed and quantized weights against plain matrix products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from v2m.models.inference.cpu_kernels import GROUP
from v2m.models.inference.fast_linear import (
    DenseLinear,
    Int4WeightLinear,
    Int8DynamicLinear,
    Int8WeightLinear,
    OneDNNLinear,
    has_int8_dynamic_kernel,
    onednn_ops,
    quantize_int4,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("rows", [1, 2, 3, 40])
@pytest.mark.parametrize("inputs", [16, 24])
@pytest.mark.parametrize("kind", [DenseLinear, OneDNNLinear, Int8WeightLinear, Int8DynamicLinear, Int4WeightLinear])
def test_linear_variants_match_a_plain_matmul(kind: Any, rows: int, inputs: int) -> None:
    if (kind is OneDNNLinear and onednn_ops() is None) or (
        kind is Int8DynamicLinear and not has_int8_dynamic_kernel(CPU)
    ):
        pytest.skip("this PyTorch has no oneDNN, or no FBGEMM with VNNI")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, inputs, generator=generator)
    x, before = torch.randn(rows, inputs, generator=generator), torch.randn(rows, 40, generator=generator)
    dtype = torch.bfloat16 if kind is Int8WeightLinear else torch.float32
    with torch.inference_mode():
        layer = kind(weight, *([2] if kind is OneDNNLinear else []))
        out = layer(x.to(dtype)), layer.gelu(x.to(dtype)), layer.plus(x.to(dtype), before.to(dtype))
    if kind is Int4WeightLinear:
        values, scales = quantize_int4(functional.pad(weight, (0, -inputs % GROUP)))
        weight = (values.unflatten(1, (-1, GROUP)) * scales[..., None]).flatten(1)[:, :inputs]
    plain = x @ weight.T
    for result, expected in zip(out, (plain, torch.nn.functional.gelu(plain), before + plain), strict=True):
        error = (result.float() - expected).abs().max() / plain.abs().max()
        assert float(error) < (1e-6 if kind in (DenseLinear, OneDNNLinear, Int4WeightLinear) else 0.02)


def test_4_bits_reach_both_ends_and_keep_zero() -> None:
    weight = torch.tensor([-1.0, 0.875, 0.0, 0.5] * 8)[None].repeat(2, 1)
    weight[1] *= -1
    values, scales = quantize_int4(weight)
    assert values[0, :4].tolist() == values[1, :4].tolist() == [-8, 7, 0, 4]
    assert torch.equal(scales, torch.tensor([[0.125], [-0.125]]))
    assert torch.equal(quantize_int4(torch.zeros(1, 32))[0], torch.zeros(1, 32, dtype=torch.int8))


def test_int8_rows_are_quantized_independently() -> None:
    if not has_int8_dynamic_kernel(CPU):
        pytest.skip("this PyTorch has no FBGEMM, or this processor no VNNI")
    weight, x = torch.randn(40, 16), torch.randn(3, 16) * torch.tensor([[1.0], [100.0], [0.0]])
    with torch.inference_mode():
        layer = Int8DynamicLinear(weight)
        assert torch.equal(layer(x)[:1], layer(x[:1]))
        assert torch.equal(layer(x)[2], torch.zeros(40))
