"""Names and kernels of musicnn's networks, both ways."""

from __future__ import annotations

import pytest
import torch

from v2m.core.errors import DependencyError
from v2m.mappings.musicnn import KEYS, from_tensorflow, to_tensorflow


def test_state_is_the_same_after_both_ways_and_the_optimizer_is_dropped() -> None:
    state = {name: torch.rand(2, 3, 4, 5) for name in KEYS if name.endswith("kernel") and "conv" in name}
    state |= {"dense/kernel": torch.rand(2, 3), "batch_normalization_10/moving_mean": torch.rand(4)}
    ours = from_tensorflow({**state, "conv2d_3/bias/Adam_1": torch.rand(4), "beta1_power": torch.rand(())})
    assert len(ours) == len(state) == 10
    assert ours["midend.2.conv.weight"].shape == (5, 4, 2, 3)
    assert torch.equal(ours["penultimate.weight"], state["dense/kernel"].T)
    assert torch.equal(ours["penultimate_norm.running_mean"], state["batch_normalization_10/moving_mean"])
    again = to_tensorflow(ours)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_variables_of_another_network_are_named() -> None:
    with pytest.raises(DependencyError, match="not the weights of a network of musicnn: it has no '1CNN/kernel'"):
        from_tensorflow({"1CNN/kernel": torch.zeros(3, 3, 1, 1)})
