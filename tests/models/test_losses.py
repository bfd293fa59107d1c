"""The loss against audiocraft's, and what does not count."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from v2m.models import patterns
from v2m.models.losses import codebook_cross_entropy, model_inputs

DELAYS, ENTRIES = (0, 1, 2, 3), 8


def audiocrafts(logits: Tensor, codes: Tensor) -> Tensor:
    """By codebook: what T steps say of the codes that come after each, in audiocraft's own pattern."""
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    pattern = DelayedPatternProvider(len(DELAYS), list(DELAYS)).get_pattern(codes.shape[2])
    rows = torch.cat([logits, torch.zeros_like(logits[:, :, :1])], dim=2).permute(0, 3, 1, 2)  # (B, V, K, T + 1)
    said, _, mask = pattern.revert_pattern_logits(rows, float("nan"), keep_only_valid_steps=True)
    said = said.permute(0, 2, 3, 1)  # (B, K, T, V)
    found = []
    for k in range(codes.shape[1]):
        there = mask[k].expand(len(codes), -1)
        found.append(cross_entropy(said[:, k][there], codes[:, k][there]))
    return torch.stack(found)


@pytest.mark.filterwarnings("ignore")
def test_it_is_audiocrafts_where_all_is_there() -> None:
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    torch.manual_seed(0)
    codes, lengths = torch.randint(ENTRIES, (3, 4, 12)), torch.full((3,), 12)
    given = model_inputs(codes, lengths, DELAYS, ENTRIES)[:, :, :12]
    pattern = DelayedPatternProvider(4, list(DELAYS)).get_pattern(12)
    theirs, _, _ = pattern.build_pattern_sequence(codes, ENTRIES, keep_only_valid_steps=True)
    assert torch.equal(given, theirs[:, :, :12])  # of its 13 steps the last predicts nothing
    logits = torch.randn(3, 4, 12, ENTRIES)
    found = codebook_cross_entropy(logits, codes, lengths, DELAYS)
    assert torch.allclose(found.per_codebook, audiocrafts(logits, codes), atol=1e-6)
    assert found.mean == pytest.approx(float(found.per_codebook.mean()))


def test_each_code_is_held_against_what_was_said_of_it_the_step_before() -> None:
    """Logits that know what comes next lose nothing; one step later they lose all."""
    codes, lengths = torch.randint(ENTRIES, (2, 4, 9)), torch.tensor([9, 9])
    sequence = patterns.apply_delays(codes, DELAYS, 0)
    knowing = 100.0 * torch.nn.functional.one_hot(sequence[:, :, 1:], ENTRIES).float()
    assert codebook_cross_entropy(knowing, codes, lengths, DELAYS).mean < 1e-6
    assert codebook_cross_entropy(knowing.roll(1, 2), codes, lengths, DELAYS).per_codebook.min() > 20


def test_what_is_behind_the_end_of_a_short_clip_counts_nowhere() -> None:
    """Neither as what is read nor as what is to be said; each code that is there counts alike in all clips."""
    torch.manual_seed(0)
    codes, lengths = torch.randint(ENTRIES, (2, 4, 10)), torch.tensor([10, 4])
    other = codes.clone()
    other[1, :, 4:] = torch.randint(ENTRIES, (4, 6))
    given = model_inputs(codes, lengths, DELAYS, ENTRIES)
    assert torch.equal(given, model_inputs(other, lengths, DELAYS, ENTRIES))
    assert torch.equal(given[1:, :, :8], patterns.apply_delays(codes[1:, :, :4], DELAYS, ENTRIES))
    logits = torch.randn(2, 4, given.shape[2], ENTRIES)
    found = codebook_cross_entropy(logits, codes, lengths, DELAYS).per_codebook
    assert torch.equal(found, codebook_cross_entropy(logits, other, lengths, DELAYS).per_codebook)
    whole, short = (
        codebook_cross_entropy(
            logits[row : row + 1], codes[row : row + 1, :, :count], lengths[row : row + 1], DELAYS
        ).per_codebook
        for row, count in ((0, 10), (1, 4))
    )
    assert torch.allclose(found, (10 * whole + 4 * short) / 14)


def test_of_too_short_a_clip_no_codebook_is_no_number() -> None:
    codes = torch.randint(ENTRIES, (1, 4, 2))
    found = codebook_cross_entropy(torch.zeros(1, 4, 2, ENTRIES), codes, torch.tensor([2]), DELAYS)
    assert found.per_codebook.tolist() == pytest.approx([math.log(ENTRIES)] * 2 + [0, 0])
