"""The cross-entropy against audiocraft's, and masking of padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from v2m.models import patterns
from v2m.models.losses import codebook_cross_entropy, model_inputs

DELAYS, ENTRIES = (0, 1, 2, 3), 8


def audiocraft_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """By codebook: what T steps say of the codes that come after each, in audiocraft's own pattern."""
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    pattern = DelayedPatternProvider(len(DELAYS), list(DELAYS)).get_pattern(codes.shape[2])
    rows = torch.cat([logits, torch.zeros_like(logits[:, :, :1])], dim=2).permute(0, 3, 1, 2)  # (B, V, K, T + 1)
    reverted, _, mask = pattern.revert_pattern_logits(rows, float("nan"), keep_only_valid_steps=True)
    reverted = reverted.permute(0, 2, 3, 1)  # (B, K, T, V)
    result = []
    for k in range(codes.shape[1]):
        valid = mask[k].expand(len(codes), -1)
        result.append(cross_entropy(reverted[:, k][valid], codes[:, k][valid]))
    return torch.stack(result)


@pytest.mark.filterwarnings("ignore")
def test_cross_entropy_matches_audiocraft_for_full_length_clips() -> None:
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    torch.manual_seed(0)
    codes, lengths = torch.randint(ENTRIES, (3, 4, 12)), torch.full((3,), 12)
    inputs = model_inputs(codes, lengths, DELAYS, ENTRIES)[:, :, :12]
    pattern = DelayedPatternProvider(4, list(DELAYS)).get_pattern(12)
    expected, _, _ = pattern.build_pattern_sequence(codes, ENTRIES, keep_only_valid_steps=True)
    assert torch.equal(inputs, expected[:, :, :12])  # of its 13 steps the last predicts nothing
    logits = torch.randn(3, 4, 12, ENTRIES)
    result = codebook_cross_entropy(logits, codes, lengths, DELAYS)
    assert torch.allclose(result.per_codebook, audiocraft_loss(logits, codes), atol=1e-6)
    assert result.mean == pytest.approx(float(result.per_codebook.mean()))


def test_each_code_is_scored_with_the_logits_of_the_previous_step() -> None:
    """Logits that know what comes next lose nothing; one step later they lose all."""
    codes, lengths = torch.randint(ENTRIES, (2, 4, 9)), torch.tensor([9, 9])
    sequence = patterns.apply_delays(codes, DELAYS, 0)
    oracle = 100.0 * torch.nn.functional.one_hot(sequence[:, :, 1:], ENTRIES).float()
    assert codebook_cross_entropy(oracle, codes, lengths, DELAYS).mean < 1e-6
    assert codebook_cross_entropy(oracle.roll(1, 2), codes, lengths, DELAYS).per_codebook.min() > 20


def test_padding_after_a_short_clip_is_ignored() -> None:
    """Neither as what is read nor as what is to be said; each code that is there counts alike in all clips."""
    torch.manual_seed(0)
    codes, lengths = torch.randint(ENTRIES, (2, 4, 10)), torch.tensor([10, 4])
    other = codes.clone()
    other[1, :, 4:] = torch.randint(ENTRIES, (4, 6))
    inputs = model_inputs(codes, lengths, DELAYS, ENTRIES)
    assert torch.equal(inputs, model_inputs(other, lengths, DELAYS, ENTRIES))
    assert torch.equal(inputs[1:, :, :8], patterns.apply_delays(codes[1:, :, :4], DELAYS, ENTRIES))
    logits = torch.randn(2, 4, inputs.shape[2], ENTRIES)
    result = codebook_cross_entropy(logits, codes, lengths, DELAYS).per_codebook
    assert torch.equal(result, codebook_cross_entropy(logits, other, lengths, DELAYS).per_codebook)
    whole, short = (
        codebook_cross_entropy(
            logits[row : row + 1], codes[row : row + 1, :, :count], lengths[row : row + 1], DELAYS
        ).per_codebook
        for row, count in ((0, 10), (1, 4))
    )
    assert torch.allclose(result, (10 * whole + 4 * short) / 14)


def test_gradients_equal_those_of_one_code_after_the_other() -> None:
    torch.manual_seed(0)
    codes, lengths = torch.randint(ENTRIES, (2, 4, 6)), torch.tensor([6, 4])
    logits = torch.randn(2, 4, 8, ENTRIES, requires_grad=True)
    codebook_cross_entropy(logits, codes, lengths, DELAYS).mean.backward()
    expected = torch.zeros_like(logits)
    places = [(clip, k, t) for clip, length in enumerate(lengths.tolist()) for k in range(4) for t in range(length)]
    for row, k, frame in places:
        step = frame + DELAYS[k]
        if step < logits.shape[2]:
            probabilities = logits[row, k, step].detach().softmax(dim=-1)
            probabilities[codes[row, k, frame]] -= 1
            counted = sum(min(int(length), logits.shape[2] - DELAYS[k]) for length in lengths)
            expected[row, k, step] = probabilities / counted / 4
    assert logits.grad is not None
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_loss_of_a_too_short_clip_has_no_nan() -> None:
    codes = torch.randint(ENTRIES, (1, 4, 2))
    result = codebook_cross_entropy(torch.zeros(1, 4, 2, ENTRIES), codes, torch.tensor([2]), DELAYS)
    assert result.per_codebook.tolist() == pytest.approx([math.log(ENTRIES)] * 2 + [0, 0])
