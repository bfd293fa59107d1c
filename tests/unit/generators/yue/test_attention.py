"""Attention with grouped keys, against transformers' own with the keys repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bench.tiny import yue_lm
from v2m.generators.yue import attention


@pytest.mark.parametrize("q", [1, 2, 5, 20])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_it_gives_what_repeated_keys_give(q: int, kv_heads: int) -> None:
    """Under a mask of its own for each row and each new token."""
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(3, q, 8, 16, generator=draws).transpose(1, 2)
    key, value = torch.randn(2, 3, kv_heads, 64, 16, generator=draws)[..., :40, :]
    mask = torch.zeros(3, 1, q, 40).masked_fill(torch.rand(3, 1, q, 40, generator=draws) < 0.5, -1e9)
    module = torch.nn.Module()
    module.num_key_value_groups = 8 // kv_heads  # pyright: ignore[reportArgumentType] - as transformers' modules do
    for scaling in (None, 0.7):
        ours, _ = attention.attend(module, query, key, value, mask, scaling=scaling)
        theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
        torch.testing.assert_close(ours, theirs)
        assert ours.is_contiguous() == theirs.is_contiguous() is True


def test_a_model_takes_it_up_and_computes_the_same(tmp_path: Path) -> None:
    path = yue_lm.make(tmp_path)
    plain, ours, eager = (
        LlamaForCausalLM.from_pretrained(path, attn_implementation=name).eval() for name in ("sdpa", "sdpa", "eager")
    )
    attention.use(ours)
    attention.use(ours)
    attention.use(eager)
    assert ours.config._attn_implementation == attention.NAME
    assert eager.config._attn_implementation == "eager", "who asks for another one keeps it"
    ids = torch.randint(0, 1000, (2, 30), generator=torch.Generator().manual_seed(0))
    padded = torch.ones_like(ids).index_fill(1, torch.arange(5), 0)
    with torch.no_grad():
        for options in ({}, {"attention_mask": padded}):
            torch.testing.assert_close(
                ours(ids, **options).logits[:, 5:, :100], plain(ids, **options).logits[:, 5:, :100]
            )


def test_it_does_not_repeat_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is handed the keys themselves."""
    handed: list[int] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        handed.append(key.data_ptr())
        return plain(query, key, *rest, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    key = torch.randn(1, 2, 64, 16)
    attention.attend(torch.nn.Module(), torch.randn(1, 8, 2, 16), key, key, torch.zeros(1, 1, 2, 64))
    assert handed == [key.data_ptr()]
