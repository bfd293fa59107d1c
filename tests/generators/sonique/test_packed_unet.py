"""SONIQUE's U-Net in its packed form and with shared rows, against the U-Net as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.fixtures.tiny import sonique as tiny
from v2m.core import compat
from v2m.generators.sonique.packed_layers import Int8Linear
from v2m.generators.sonique.packed_unet import pack_unet
from v2m.generators.sonique.unet import UNet

pytestmark = pytest.mark.skipif(compat.onednn_ops() is None, reason="PyTorch is built without oneDNN")
FRAMES = 48  # of which the lowest level has an odd number


def make_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two latents at two times, and two conditions under different masks."""
    torch.manual_seed(4)
    mask = torch.rand(2, tiny.TOKENS + 2) > 0.4
    mask[1] = True  # without padding
    context = torch.randn(2, tiny.TOKENS + 2, tiny.WIDTH)
    return torch.randn(2, tiny.LATENT, FRAMES), torch.tensor([0.1, 0.97]), context, mask


def reference_velocity() -> Tensor:
    """Velocities of both latents under the first condition, then under the second, of a row for each."""
    x, time, context, mask = make_inputs()
    rows = [tensor.repeat_interleave(2, dim=0) for tensor in (context, mask)]
    return tiny.make_unet()(torch.cat([x, x]), torch.cat([time, time]), *rows)


def shared_velocity(unet: UNet) -> Tensor:
    """The same of rows that are shared up to the first cross-attention."""
    x, time, context, mask = make_inputs()
    return unet.velocity(x, time, unet.project_context(context, mask), 4).float()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
@pytest.mark.parametrize("attentions", [[1, 2, 1, 1, 1], [0, 1, 0, 2, 1], [0, 0, 0, 0, 0]])
def test_shared_rows_equal_a_row_for_each_condition(attentions: list[int]) -> None:
    unet = tiny.make_unet(tiny.make_config(attentions=attentions))
    x, time, context, mask = make_inputs()
    rows = [tensor.repeat_interleave(2, dim=0) for tensor in (context, mask)]
    expected = unet(torch.cat([x, x]), torch.cat([time, time]), *rows)
    torch.testing.assert_close(shared_velocity(unet), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_packed_unet_equals_the_unet_in_float32() -> None:
    unet = tiny.make_unet()
    pack_unet(unet, torch.float32)
    torch.testing.assert_close(shared_velocity(unet), reference_velocity(), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("int8", [False, True])
def test_lower_precision_stays_near_float32(int8: bool) -> None:
    """Random weights of 32 channels make much of rounding: PyTorch's own bfloat16 is as far off."""
    if not compat.onednn_supports(torch.bfloat16) or (int8 and compat.onednn_int8_ops() is None):
        pytest.skip("this CPU has no instructions for it")
    expected, plain, unet = reference_velocity(), tiny.make_unet().to(torch.bfloat16), tiny.make_unet()
    pack_unet(unet, torch.bfloat16, int8=int8)
    assert any(isinstance(module, Int8Linear) for module in unet.modules()) == int8
    error, plain_error = (relative_error(shared_velocity(network), expected) for network in (unet, plain))
    assert 1e-4 < error < 2 * plain_error < 0.3


def test_packing_frees_the_weights() -> None:
    unet = tiny.make_unet()
    layers = [module for module in unet.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
    pack_unet(unet, torch.float32)
    assert layers
    assert all(layer.weight.is_meta for layer in layers)
    assert all(value.ndim == 1 for name, value in unet.named_parameters() if "embedding" not in name)


def test_type_alone_changes_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "onednn_supports", lambda dtype: False)
    unet = tiny.make_unet()
    names = list(unet.state_dict())
    pack_unet(unet, torch.bfloat16)
    assert list(unet.state_dict()) == names
    assert {value.dtype for value in unet.state_dict().values()} == {torch.bfloat16}
