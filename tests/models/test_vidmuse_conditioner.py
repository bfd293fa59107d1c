"""What holds for the visual conditioner whatever its weights; that it is the published one is tested in parity/."""

from __future__ import annotations

import pytest
import torch

from v2m.models.visual_conditioner import ConditionerConfig, VidMuseConditioner, VisualInputs

SIZES = ConditionerConfig(
    kind="vidmuse", vision_dim=12, num_tokens=5, num_layers=2, num_heads=2, head_dim=4, ffn_dim=24, num_fusion_heads=3
)


def shown(near: torch.Tensor, whole: torch.Tensor) -> VisualInputs:
    nothing = torch.zeros(len(near), 0)
    masks = [torch.ones(each.shape[:2], dtype=torch.bool) for each in (near, whole)]
    times = [mask.float() for mask in masks]
    return VisualInputs(
        near, times[0], masks[0], whole, times[1], masks[1], nothing[..., None], nothing, nothing.bool()
    )  # fmt: skip


def test_near_frames_keep_their_places_and_know_of_each_other_nothing() -> None:
    """Another second frame changes its own tokens alone; another whole video changes all."""
    torch.manual_seed(0)
    model = VidMuseConditioner(SIZES, 16)
    near, whole = torch.randn(2, 3, 5, 12), torch.randn(2, 4, 5, 12)
    before = model(shown(near, whole)).tokens.unflatten(1, (3, 5))
    near[:, 1] += torch.randn(2, 5, 12)
    after = model(shown(near, whole)).tokens.unflatten(1, (3, 5))
    changed = (after - before).abs().amax(dim=(0, 2, 3))
    assert changed[1] > 0.01
    assert changed[[0, 2]].max() < 1e-6
    other = model(shown(near, torch.randn_like(whole))).tokens.unflatten(1, (3, 5))
    assert ((other - after).abs().amax(dim=(2, 3)) > 0.001).all()


def test_frames_that_are_not_there_change_nothing() -> None:
    torch.manual_seed(0)
    model = VidMuseConditioner(SIZES, 16)
    near, whole = torch.randn(1, 3, 5, 12), torch.randn(1, 4, 5, 12)
    seen = shown(near, whole)
    seen = seen._replace(short_term_mask=torch.tensor([[True, True, False]]), long_term_mask=torch.arange(4)[None] < 3)
    found, wanted = model(seen), model(shown(near[:, :2], whole[:, :3]))
    assert found.mask.tolist() == [[True] * 10 + [False] * 5]
    assert torch.allclose(found.tokens[:, :10], wanted.tokens, atol=1e-6)
    assert not found.tokens[:, 10:].any()


def test_all_of_it_learns() -> None:
    model = VidMuseConditioner(SIZES, 16)
    model(shown(torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 12))).tokens.square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] in (
        [],
        ["fusion.key.bias"],  # which moves all scores alike
    )


def test_sizes_that_cannot_be_are_told_together() -> None:
    with pytest.raises(ValueError, match=r"num_layers 0 must be 1 or more; num_heads -1 must be 1 or more"):
        ConditionerConfig(num_layers=0, num_heads=-1)
    with pytest.raises(ValueError, match="vision_dim 768 must be a multiple of the 5 fusion heads"):
        ConditionerConfig(kind="vidmuse", num_fusion_heads=5)
    with pytest.raises(ValueError, match="num_heads 3 times head_dim 5 must be even"):
        ConditionerConfig(num_heads=3, head_dim=5)
    with pytest.raises(ValueError, match="kind 'long' must be 'v2m' or 'vidmuse'"):
        ConditionerConfig(kind="long")  # pyright: ignore[reportArgumentType]
