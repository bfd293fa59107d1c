"""CapturedStep runs the step once per call, with and without CUDA graph capture."""

from __future__ import annotations

import logging

import pytest
import torch

from v2m.models.inference.cuda_graph import WARMUP_CALLS, CapturedStep

CALLS = WARMUP_CALLS + 4


def test_every_call_runs_the_step_without_capture() -> None:
    count = torch.zeros(1)
    step = CapturedStep(lambda: count.add_(1), capture=False)  # type: ignore[arg-type, return-value]
    for _ in range(CALLS):
        step()
    assert count.item() == CALLS


@pytest.mark.skipif(torch.cuda.is_available(), reason="what happens where there is no CUDA")
def test_capture_without_cuda_runs_every_step_and_warns_once(
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
def test_captured_step_continues_from_the_warmup_state_on_cuda() -> None:
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
