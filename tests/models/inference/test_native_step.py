"""One call of the CPU kernels for a step, against the same kernels layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference import cpu_kernels, kernel_choice
from v2m.models.inference.decoder import GenerationState
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.lm import LM, LMConfig

D, V = 64, 40
STEPS = 20


def branches() -> list[CFGBranch]:
    """Nothing, a condition that the second of two clips has not, and one with gaps."""
    generator = torch.Generator().manual_seed(1)
    short = Condition.from_tokens(torch.randn(2, 3, D, generator=generator))
    short.mask[1:] = False
    long = Condition(torch.randn(2, 7, D, generator=generator), torch.rand(2, 7, generator=generator) > 0.4)
    return [CFGBranch(-2.0, None), CFGBranch(0.5, short), CFGBranch(2.5, long)]


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("changes", [{}, {"cross_attention": False}], ids=["cross-attention", "prefix"])
def test_logits_are_those_of_the_layers_one_by_one(precision: Precision, changes: dict[str, Any]) -> None:
    if cpu_kernels.load_kernels() is None:
        pytest.skip("no C compiler, or another system than Linux")
    torch.manual_seed(0)
    lm = LM(LMConfig(dim=D, num_layers=3, num_heads=4, codebook_size=V, **changes)).eval()
    prompt = torch.randint(V, (2, 4, 5))
    with torch.inference_mode():
        states = [
            GenerationState(
                InferenceLM(lm, precision), branches(), STEPS, sampling=SamplingConfig(), seeds=[0, 1], prompt=prompt
            )
            for _ in range(2)
        ]
        for state in states:
            state.prefill()
        together, one_by_one = states
        assert together.native_step is not None
        one_by_one.native_step = None
        for _ in range(STEPS - 5):
            assert torch.equal(together.next_logits(), one_by_one.next_logits())


def test_step_is_left_out_where_pytorch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = kernel_choice.available_kernels("int8", torch.device("cpu"))
    monkeypatch.setattr("v2m.models.inference.inference_lm.choose_kernel", lambda *_: kernels[-1])
    lm = LM(LMConfig(dim=D, num_layers=1, num_heads=4, codebook_size=V)).eval()
    with torch.inference_mode():
        state = GenerationState(
            InferenceLM(lm, "int8"), [CFGBranch(1.0, None)], 3, sampling=SamplingConfig(), seeds=[0], prompt=None
        )
        state.prefill()
        assert kernels[-1].name == "torch"
        assert state.native_step is None
        assert state.next_logits().isfinite().all()
