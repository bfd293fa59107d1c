"""Properties of VidMuseConditioner for any weights; parity with VidMuse is tested in parity/."""

from __future__ import annotations

import pytest
import torch

from v2m.models.visual_conditioner import ConditionerConfig, VidMuseConditioner, VisualInputs

SIZES = ConditionerConfig(
    kind="vidmuse", vision_dim=12, num_tokens=5, num_layers=2, num_heads=2, head_dim=4, ffn_dim=24, num_fusion_heads=3
)


def make_inputs(near: torch.Tensor, whole: torch.Tensor) -> VisualInputs:
    nothing = torch.zeros(len(near), 0)
    masks = [torch.ones(item.shape[:2], dtype=torch.bool) for item in (near, whole)]
    times = [mask.float() for mask in masks]
    return VisualInputs(
        near, times[0], masks[0], whole, times[1], masks[1], nothing[..., None], nothing, nothing.bool()
    )  # fmt: skip


def test_short_term_frames_are_independent_and_all_depend_on_the_long_term() -> None:
    """Another second frame changes its own tokens alone; another whole video changes all."""
    torch.manual_seed(0)
    model = VidMuseConditioner(SIZES, 16)
    near, whole = torch.randn(2, 3, 5, 12), torch.randn(2, 4, 5, 12)
    before = model(make_inputs(near, whole)).tokens.unflatten(1, (3, 5))
    near[:, 1] += torch.randn(2, 5, 12)
    after = model(make_inputs(near, whole)).tokens.unflatten(1, (3, 5))
    changed = (after - before).abs().amax(dim=(0, 2, 3))
    assert changed[1] > 0.01
    assert changed[[0, 2]].max() < 1e-6
    other = model(make_inputs(near, torch.randn_like(whole))).tokens.unflatten(1, (3, 5))
    assert ((other - after).abs().amax(dim=(2, 3)) > 0.001).all()


def test_masked_frames_have_no_effect() -> None:
    torch.manual_seed(0)
    model = VidMuseConditioner(SIZES, 16)
    near, whole = torch.randn(1, 3, 5, 12), torch.randn(1, 4, 5, 12)
    inputs = make_inputs(near, whole)
    inputs = inputs._replace(
        short_term_mask=torch.tensor([[True, True, False]]), long_term_mask=torch.arange(4)[None] < 3
    )
    result, expected = model(inputs), model(make_inputs(near[:, :2], whole[:, :3]))
    assert result.mask.tolist() == [[True] * 10 + [False] * 5]
    assert torch.allclose(result.tokens[:, :10], expected.tokens, atol=1e-6)
    assert not result.tokens[:, 10:].any()


def test_all_parameters_receive_gradients() -> None:
    model = VidMuseConditioner(SIZES, 16)
    model(make_inputs(torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 12))).tokens.square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] in (
        [],
        ["fusion.key.bias"],  # which moves all scores alike
    )


def test_invalid_config_values_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"num_layers 0 must be 1 or more; num_heads -1 must be 1 or more"):
        ConditionerConfig(num_layers=0, num_heads=-1)
    with pytest.raises(ValueError, match="vision_dim 768 must be a multiple of the 5 fusion heads"):
        ConditionerConfig(kind="vidmuse", num_fusion_heads=5)
    with pytest.raises(ValueError, match="num_heads 3 times head_dim 5 must be even"):
        ConditionerConfig(num_heads=3, head_dim=5)
    with pytest.raises(ValueError, match="time_encoding 'none' must be 'sinusoidal' or 'rotary'"):
        ConditionerConfig(time_encoding="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="head_dim 5 must be even where time_encoding is rotary"):
        ConditionerConfig(time_encoding="rotary", num_heads=2, head_dim=5)
    with pytest.raises(ValueError, match="kind 'long' must be 'v2m' or 'vidmuse'"):
        ConditionerConfig(kind="long")  # pyright: ignore[reportArgumentType]
