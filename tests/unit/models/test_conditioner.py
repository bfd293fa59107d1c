"""What holds for the visual conditioner whatever its weights; that it is the published one is tested in parity/."""

from __future__ import annotations

import pytest
import torch

from v2m.models.conditioner import Conditioner, ConditionerConfig

SIZES = ConditionerConfig(width=12, tokens=5, layers=2, heads=2, head_width=4, feedforward=24, fusion_heads=3)


def test_near_frames_keep_their_places_and_know_of_each_other_nothing() -> None:
    """Another second frame changes its own tokens alone; another whole video changes all."""
    torch.manual_seed(0)
    model = Conditioner(SIZES, 16)
    near, whole = torch.randn(2, 3, 5, 12), torch.randn(2, 4, 5, 12)
    before = model(near, whole).tokens.unflatten(1, (3, 5))
    near[:, 1] += torch.randn(2, 5, 12)
    after = model(near, whole).tokens.unflatten(1, (3, 5))
    changed = (after - before).abs().amax(dim=(0, 2, 3))
    assert changed[1] > 0.01
    assert changed[[0, 2]].max() < 1e-6
    assert (
        (model(near, torch.randn_like(whole)).tokens.unflatten(1, (3, 5)) - after).abs().amax(dim=(2, 3)) > 0.001
    ).all()


def test_all_of_it_learns() -> None:
    model = Conditioner(SIZES, 16)
    model(torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 12)).tokens.square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] in (
        [],
        ["fusion.key.bias"],  # which moves all scores alike
    )


def test_sizes_that_cannot_be_are_told_together() -> None:
    with pytest.raises(ValueError, match=r"layers 0 must be 1 or more; heads -1 must be 1 or more"):
        ConditionerConfig(layers=0, heads=-1)
    with pytest.raises(ValueError, match="width 768 must be a multiple of the 5 fusion heads"):
        ConditionerConfig(fusion_heads=5)
    with pytest.raises(ValueError, match="kind 'long' must be 'vidmuse'"):
        ConditionerConfig(kind="long")  # pyright: ignore[reportArgumentType]
