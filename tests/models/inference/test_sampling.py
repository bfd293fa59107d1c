"""Sampling against transformers' logits processors, and sample frequencies against the probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from v2m.models.inference.sampling import (
    apply_cfg,
    apply_repetition_penalty,
    filter_logits,
    gumbel_argmax,
    sample_token,
)

B, V = 3, 200
UNREAD = torch.LongTensor([[0]] * B)


def logits(seed: int = 0, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(B, V, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.5, 3.0])
def test_apply_cfg_matches_transformers(scale: float) -> None:
    cond, uncond = logits(1), logits(2)

    def model(*_: Any, **__: Any) -> Any:
        return type("Out", (SimpleNamespace,), {"get": lambda *_: None})(logits=uncond[:, None])

    expected = UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, model)(UNREAD, cond)
    assert torch.equal(apply_cfg(cond, uncond, scale), expected)


def test_apply_cfg_with_scale_1_returns_the_conditional_logits() -> None:
    torch.testing.assert_close(apply_cfg(logits(1), logits(2), 1.0), logits(1).log_softmax(-1))


@pytest.mark.parametrize("penalty", [1.0, 1.1, 2.0])
def test_repetition_penalty_matches_transformers(penalty: float) -> None:
    ids = torch.LongTensor(torch.randint(0, V, (B, 50), generator=generator()).tolist())
    seen = torch.zeros(B, V, dtype=torch.bool).scatter(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits())
    assert torch.equal(apply_repetition_penalty(logits(), seen, penalty), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 50, V, V + 1])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.93, 1.0])
def test_filter_logits_matches_transformers(temperature: float, top_k: int, top_p: float) -> None:
    """Also where some logits are equal and some are ruled out already."""
    scores = logits()
    scores[0, :20] = scores[0].topk(40).values[-1]
    scores[1, 30:] = -torch.inf
    expected = TemperatureLogitsWarper(temperature)(UNREAD, scores)
    expected = TopKLogitsWarper(top_k)(UNREAD, expected) if top_k else expected
    expected = TopPLogitsWarper(top_p)(UNREAD, expected)
    assert torch.equal(filter_logits(scores, temperature=temperature, top_k=top_k, top_p=top_p), expected)


def test_inputs_are_not_modified_in_place() -> None:
    scores, seen = logits(), torch.ones(B, V, dtype=torch.bool)
    apply_cfg(scores, scores, 2.0)
    apply_repetition_penalty(scores, seen, 2.0)
    sample_token(scores, top_k=5, top_p=0.5, generator=generator())
    assert torch.equal(scores, logits())


def test_gumbel_argmax_samples_follow_the_probabilities() -> None:
    """100 000 draws: χ² with 5 degrees of freedom stays below its 99.9 % point."""
    shares = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01, 0.0])
    drawn = gumbel_argmax(shares.log().expand(100_000, -1), generator())
    counts = torch.bincount(drawn, minlength=7)
    assert counts[6] == 0
    expected = 100_000 * shares[:6]
    assert float(((counts[:6] - expected) ** 2 / expected).sum()) < 20.5


def test_gumbel_argmax_is_shift_invariant_and_rows_are_independent() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, -1)
    assert torch.equal(gumbel_argmax(scores, generator()), gumbel_argmax(scores + 40, generator()))
    first, second = gumbel_argmax(scores, generator()).split(10_000)
    assert 0.45 < float((first == second).float().mean()) < 0.55  # Σ p² = 0.511


def test_samples_are_determined_by_the_seed() -> None:
    one, again, other = (sample_token(logits(spread=0.1), generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_temperature_0_is_argmax_and_does_not_advance_the_generator() -> None:
    state = generator()
    assert torch.equal(sample_token(logits(), temperature=0.0, top_k=7, generator=state), logits().argmax(-1))
    assert torch.equal(state.get_state(), generator().get_state())


def test_samples_are_among_the_filtered_tokens() -> None:
    scores = logits().repeat(500, 1)
    drawn = sample_token(scores, temperature=2.0, top_k=4, top_p=0.9, generator=generator())
    kept = filter_logits(logits(), temperature=2.0, top_k=4, top_p=0.9).isfinite()
    assert kept.repeat(500, 1).gather(1, drawn[:, None]).all()
    for row in range(B):
        assert set(drawn[row::B].tolist()) == set(kept[row].nonzero().flatten().tolist())
