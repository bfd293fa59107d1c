"""Products with packed and rounded weights against plain ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from v2m.models.inference.fast_linear import (
    DenseLinear,
    Int8DynamicLinear,
    Int8WeightLinear,
    OneDNNLinear,
    has_int8_dynamic_kernel,
    onednn_ops,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("rows", [1, 2, 3, 40])
@pytest.mark.parametrize("inputs", [16, 24])
@pytest.mark.parametrize("kind", [DenseLinear, OneDNNLinear, Int8WeightLinear, Int8DynamicLinear])
def test_all_give_the_same(kind: Any, rows: int, inputs: int) -> None:
    if (kind is OneDNNLinear and onednn_ops() is None) or (
        kind is Int8DynamicLinear and not has_int8_dynamic_kernel(CPU)
    ):
        pytest.skip("this PyTorch has no oneDNN, or no FBGEMM with VNNI")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, inputs, generator=generator)
    x, before = torch.randn(rows, inputs, generator=generator), torch.randn(rows, 40, generator=generator)
    dtype = torch.bfloat16 if kind is Int8WeightLinear else torch.float32
    with torch.inference_mode():
        made = kind(weight, *([2] if kind is OneDNNLinear else []))
        out = made(x.to(dtype)), made.gelu(x.to(dtype)), made.plus(x.to(dtype), before.to(dtype))
    plain = x @ weight.T
    for found, expected in zip(out, (plain, torch.nn.functional.gelu(plain), before + plain), strict=True):
        error = (found.float() - expected).abs().max() / plain.abs().max()
        assert float(error) < (1e-6 if kind in (DenseLinear, OneDNNLinear) else 0.02)


def test_a_rounded_vector_does_not_depend_on_its_neighbors() -> None:
    if not has_int8_dynamic_kernel(CPU):
        pytest.skip("this PyTorch has no FBGEMM, or this processor no VNNI")
    weight, x = torch.randn(40, 16), torch.randn(3, 16) * torch.tensor([[1.0], [100.0], [0.0]])
    with torch.inference_mode():
        made = Int8DynamicLinear(weight)
        assert torch.equal(made(x)[:1], made(x[:1]))
        assert torch.equal(made(x)[2], torch.zeros(40))
