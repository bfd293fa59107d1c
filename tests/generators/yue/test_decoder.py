"""LlamaDecoder and its operations match transformers and PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.generators.yue.tiny_llama import load
from v2m.generators.yue.decoder import (
    LlamaDecoder,
    expand_mask,
    gqa_attention,
    linear,
    lm_head_rows,
    make_cache,
    quantize_layers,
)
from v2m.models.inference.fast_linear import Precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.1)])
def test_incremental_decoding_matches_transformers(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    model = load(tmp_path, dtype)
    ids = torch.randint(45334, 53526, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        step = LlamaDecoder(model, make_cache(model, 3, 40))
        end = 0
        for count in (17, 1, 2, 1, 3, 16):
            end += count
            torch.testing.assert_close(
                step(ids[:, end - count : end]), expected[:, end - 1], atol=tolerance, rtol=tolerance
            )
    assert step.cache.seq_length == 40


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.03), ("int4", 0.3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantized_layers_give_nearly_the_same(
    tmp_path: Path, precision: Precision, bound: float, dtype: torch.dtype
) -> None:
    """Prompts of many ids as well as single steps; int8 is ten times nearer than int4."""
    model = load(tmp_path, dtype)
    ids = torch.randint(45334, 53526, (2, 40), generator=torch.Generator().manual_seed(0))

    def outputs() -> torch.Tensor:
        step = LlamaDecoder(model, make_cache(model, 2, 40))
        return torch.stack([step(ids[:, start:end]) for start, end in ((0, 36), (36, 38), (38, 39))]).float()

    with torch.inference_mode():
        exact = outputs()
        quantize_layers(model, precision)
        rounded = outputs()
    error = float((rounded - exact).norm() / exact.norm())
    assert 1e-4 < error < bound
    assert lm_head_rows(model, 0, 10).dtype == torch.float32, "the output layer stays whole"


@pytest.mark.parametrize("new", [1, 2, 5])
def test_gqa_attention_matches_attention_with_repeated_keys(new: int) -> None:
    random = torch.Generator().manual_seed(new)
    query, key, value = (torch.randn(3, heads, n, 8, generator=random) for heads, n in ((8, new), (2, 9), (2, 9)))
    mask = torch.zeros(3, 1, new, 9).masked_fill(torch.rand(3, 1, new, 9, generator=random) < 0.4, -torch.inf)
    mask[..., 0] = 0.0
    keys, values = key.repeat_interleave(4, dim=1), value.repeat_interleave(4, dim=1)
    expected = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(gqa_attention(query, key, value, expand_mask(mask, 4), 0.3), expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_matches_torch_for_few_rows(shape: tuple[int, int], dtype: torch.dtype, biased: bool) -> None:
    random = torch.Generator().manual_seed(sum(shape))
    x, weight = (torch.randn(*item, 24, generator=random).to(dtype) for item in (shape, (7,)))
    bias = torch.randn(7, generator=random).to(dtype) if biased else None
    result = linear(x, weight, bias)
    assert result.is_contiguous()
    torch.testing.assert_close(result, functional.linear(x, weight, bias))
