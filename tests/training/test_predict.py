"""How a run over videos ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import pytest

from v2m.core import errors
from v2m.core.errors import DiskFullError
from v2m.pipeline.batch import VideoResult
from v2m.training.predict import PredictResults


class Ends(lightning.LightningModule):
    """Gives each number of a batch as a row with that code."""

    def predict_step(self, batch: list[int], _: int) -> list[VideoResult]:
        if batch == [-1]:
            os.kill(os.getpid(), signal.SIGTERM)
        if batch == [-2]:  # as where what is no longer needed is tidied up
            with suppress(SystemExit):
                os.kill(os.getpid(), signal.SIGTERM)
        return [
            VideoResult(Path(str(code)), "failed" if code else "done", "why", code, trace="the trace") for code in batch
        ]


class Codes:
    def __init__(self, *codes: int) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes) + 1

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([code] for code in self.codes)
        yield []


def run(*codes: int) -> PredictResults:
    outcome = PredictResults()
    quiet: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(**quiet, enable_model_summary=False, accelerator="cpu", devices=1, callbacks=[outcome])
    trainer.predict(Ends(), Codes(*codes))
    return outcome


def test_failed_video_gives_batch_exit_code() -> None:
    assert (run(0, 0).exit_code, run(0, 3, 0).exit_code) == (errors.OK, errors.BATCH)
    outcome = run(0, 3)
    assert [row.code for row in outcome.rows] == [0, 3]
    assert outcome.table.endswith("1 done, 1 failed")


def test_trace_of_a_bug_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert run(errors.BUG).exit_code == errors.BATCH
    assert "1: the trace" in caplog.text


def test_full_disk_ends_the_run() -> None:
    with pytest.raises(DiskFullError, match=r"'6': why") as found:
        run(0, errors.DISK, 0)
    assert errors.exit_code(found.value) == errors.DISK


@pytest.mark.parametrize("code", [-1, -2])
def test_signal_ends_the_run_and_handlers_are_restored(code: int) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as found:
        run(0, code, 0)
    assert found.value.code == errors.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
