"""Concatenation of conditions and interpolation of step biases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v2m.models.conditioning import Condition, StepBias, concat


def test_concat_joins_tokens_and_masks() -> None:
    one, two = Condition.from_tokens(torch.ones(2, 3, 4)), Condition(torch.zeros(2, 1, 4), torch.zeros(2, 1).bool())
    both = concat(one, None, two)
    assert both is not None
    assert torch.equal(both.tokens, torch.cat([one.tokens, two.tokens], 1))
    assert both.mask.tolist() == [[True, True, True, False]] * 2
    assert concat(None, None) is None


def test_to_casts_tokens_but_not_the_mask() -> None:
    moved = Condition.from_tokens(torch.ones(1, 2, 3)).to("cpu", torch.bfloat16)
    assert (moved.tokens.dtype, moved.mask.dtype) == (torch.bfloat16, torch.bool)


def cues() -> StepBias:
    """Two rows, of which the second has its last cue not there."""
    tokens = torch.tensor([[0.0, 10.0, 30.0], [5.0, 7.0, 1000.0]])[..., None]
    return StepBias(tokens, torch.tensor([[1.5, 3.5, 5.5]] * 2), torch.tensor([[True] * 3, [True, True, False]]))


def test_step_bias_interpolates_linearly_and_is_constant_outside() -> None:
    steps = torch.arange(8.0)
    result = cues().interpolate(8)[..., 0]
    np.testing.assert_allclose(result[0], np.interp(steps, [1.5, 3.5, 5.5], [0, 10, 30]), rtol=1e-6)
    np.testing.assert_allclose(result[1], np.interp(steps, [1.5, 3.5], [5, 7]), rtol=1e-6)


def test_step_bias_of_an_empty_row_is_zero_and_of_a_single_token_constant() -> None:
    given = cues()
    given.mask[0], given.mask[1, 1:] = False, False
    result = given.interpolate(4)[..., 0]
    assert result.tolist() == [[0.0] * 4, [5.0] * 4]
    emptied = Condition(torch.zeros(2, 1, 1), torch.ones(2, 1) > 0, cues()).drop(torch.tensor([True, False]))
    assert emptied.mask.tolist() == [[False], [True]]
    assert emptied.step_bias is not None
    assert emptied.step_bias.interpolate(3)[:, 0, 0].tolist() == [0.0, 5.0]


def test_step_bias_is_kept_by_concat_select_and_to() -> None:
    with_cues = Condition(torch.zeros(2, 1, 1), torch.ones(2, 1) > 0, cues())
    joined = concat(Condition.from_tokens(torch.ones(2, 2, 1)), with_cues)
    assert joined is not None
    assert joined.step_bias is with_cues.step_bias
    last = joined.select(slice(1, 2)).to("cpu", torch.bfloat16)
    assert last.step_bias is not None
    assert torch.equal(last.step_bias.interpolate(4).float(), cues().interpolate(4)[1:])
    with pytest.raises(AssertionError):
        concat(with_cues, with_cues)
