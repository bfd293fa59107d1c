"""Conditions side by side."""

from __future__ import annotations

import torch

from v2m.models.condition import Condition, join


def test_side_by_side() -> None:
    one, two = Condition.whole(torch.ones(2, 3, 4)), Condition(torch.zeros(2, 1, 4), torch.zeros(2, 1).bool())
    both = join(one, None, two)
    assert both is not None
    assert torch.equal(both.tokens, torch.cat([one.tokens, two.tokens], 1))
    assert both.mask.tolist() == [[True, True, True, False]] * 2
    assert join(None, None) is None


def test_another_type_leaves_the_mask() -> None:
    moved = Condition.whole(torch.ones(1, 2, 3)).to("cpu", torch.bfloat16)
    assert (moved.tokens.dtype, moved.mask.dtype) == (torch.bfloat16, torch.bool)
