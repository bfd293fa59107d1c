"""Conditions side by side and one below the other."""

from __future__ import annotations

import torch

from v2m.models.condition import Condition, join, stack


def test_side_by_side() -> None:
    one, two = Condition.whole(torch.ones(2, 3, 4)), Condition(torch.zeros(2, 1, 4), torch.zeros(2, 1).bool())
    both = join(one, None, two)
    assert both is not None
    assert torch.equal(both.tokens, torch.cat([one.tokens, two.tokens], 1))
    assert both.mask.tolist() == [[True, True, True, False]] * 2
    assert join(None, None) is None


def test_one_below_the_other_the_shorter_is_filled_up() -> None:
    one, two = Condition.whole(torch.ones(1, 3, 4)), Condition.whole(torch.full((2, 1, 4), 2.0))
    rows = stack(one, None, two)
    assert rows is not None
    assert rows.mask.tolist() == [[True] * 3, [False] * 3, [True, False, False], [True, False, False]]
    assert rows.tokens[:, :, 0].tolist() == [[1, 1, 1], [0, 0, 0], [2, 0, 0], [2, 0, 0]]
    assert stack(None, None) is None


def test_another_type_leaves_the_mask() -> None:
    moved = Condition.whole(torch.ones(1, 2, 3)).to("cpu", torch.bfloat16)
    assert (moved.tokens.dtype, moved.mask.dtype) == (torch.bfloat16, torch.bool)
