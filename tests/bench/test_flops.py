"""The arithmetic of training, against PyTorch's own count of every operation."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench import flops
from v2m.models.conditioning import Condition
from v2m.models.lm import LM, LMConfig


@pytest.mark.parametrize(("clips", "steps", "tokens"), [(1, 10, 7), (3, 25, 12)])
def test_the_count_is_that_of_every_product(clips: int, steps: int, tokens: int) -> None:
    config = LMConfig(dim=32, num_layers=3, num_heads=4, ffn_dim=96, num_codebooks=4, codebook_size=50)
    lm = LM(config)
    heard = Condition.from_tokens(torch.randn(clips, tokens, 32, requires_grad=True))
    codes = torch.randint(50, (clips, 4, steps))
    with sdpa_kernel(SDPBackend.MATH):  # of products that can be counted
        with FlopCounterMode(display=False) as forth:
            logits = lm(codes, heard)
        with FlopCounterMode(display=False) as back:
            logits.sum().backward()
    assert forth.get_total_flops() == flops.forward(config, clips, steps, tokens)
    assert forth.get_total_flops() + back.get_total_flops() == flops.training(config, clips, steps, tokens)


def test_a_gpu_is_known_by_its_name() -> None:
    assert flops.peak("NVIDIA H100 80GB HBM3") == 989.4e12
    assert flops.peak("NVIDIA H100 PCIe") == 756e12
    assert flops.peak("NVIDIA L40S") == 362e12
    assert flops.peak("NVIDIA GeForce RTX 4090") == 165.2e12
    assert flops.peak("Some other") is None
