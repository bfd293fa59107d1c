"""A step that is called many times is taken just as many times, captured or not."""

from __future__ import annotations

import logging

import pytest
import torch

from v2m.models.inference.cuda_graph import WARMUP_CALLS, CapturedStep

CALLS = WARMUP_CALLS + 4


def test_without_capture_each_call_is_a_step() -> None:
    count = torch.zeros(1)
    step = CapturedStep(lambda: count.add_(1), capture=False)  # type: ignore[arg-type, return-value]
    for _ in range(CALLS):
        step()
    assert count.item() == CALLS


@pytest.mark.skipif(torch.cuda.is_available(), reason="what happens where there is no CUDA")
def test_where_nothing_can_be_captured_every_step_is_taken_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = torch.zeros(1)
    step = CapturedStep(lambda: count.add_(1), capture=True)  # type: ignore[arg-type, return-value]
    with caplog.at_level(logging.WARNING, logger="v2m"):
        for _ in range(CALLS):
            step()
    assert count.item() == CALLS
    assert len(caplog.records) == 1
    assert "no CUDA graph could be captured" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_a_captured_step_goes_on_where_the_steps_before_it_ended() -> None:
    count = torch.zeros(1, device="cuda")
    launched: list[int] = []

    def step() -> None:
        launched.append(1)
        count.add_(1)

    repeated = CapturedStep(step, capture=True)
    for _ in range(CALLS):
        repeated()
    assert count.item() == CALLS
    assert len(launched) == WARMUP_CALLS + 1
