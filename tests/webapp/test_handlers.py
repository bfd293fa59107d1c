"""Handlers of the page with a stub instead of the worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from v2m.core.errors import UsageError
from v2m.pipeline.job_runner import CandidateFiles, Event, Job, JobResult
from v2m.webapp.form import FIELDS, Form
from v2m.webapp.handlers import Handlers, PageState, Values
from v2m.webapp.sessions import SessionFolders

REQUEST: Any = SimpleNamespace(session_hash="a session")
VALUES = [getattr(Form(seed=3, candidates=2), name) for name in FIELDS]
RECORD = {"range": {"start": 0.0, "end": 4.0}, "mix": {"range_loudness": -14.0}, "alignment": None, "warnings": []}


class StubRunner:
    """Keeps the jobs, and ends each with `error` or with one candidate for each seed."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.error: Exception | None = None

    def run(self, job: Job, session: str) -> Iterator[Event]:
        self.jobs.append(job)
        yield "stage", "Writing the music"
        yield "progress", 0.5
        if self.error is not None:
            raise self.error
        seed, out = job.overrides["seed"], job.out
        if out is None:
            yield "done", JobResult({"genres": ["jazz"], "tempo": 90.0}, is_playable=job.video.suffix == ".mp4")
            return
        files = [CandidateFiles(seed + number, out, 0.5) for number in range(job.overrides["candidates"])]
        yield "done", JobResult({}, RECORD, tuple(files))

    def cancel(self, session: str | None = None) -> bool:
        return session is None


@pytest.fixture
def runner() -> StubRunner:
    return StubRunner()


@pytest.fixture
def handlers(runner: StubRunner) -> Iterator[Handlers]:
    folders = SessionFolders()
    yield Handlers(60.0, runner, folders)  # type: ignore[arg-type]
    folders.close()


def scored(handlers: Handlers) -> Values:
    handlers.enqueue(REQUEST)
    return list(handlers.score(REQUEST, "a/my film.mov", "sketch", *VALUES))[-1]


def test_score_shows_progress_and_then_the_best_candidate(handlers: Handlers, runner: StubRunner) -> None:
    handlers.enqueue(REQUEST)
    updates = list(handlers.score(REQUEST, "a/my film.mov", "sketch", *VALUES))
    assert "Writing the music · 50%" in updates[-2][0]
    status, state, _, video, *_ = updates[-1]
    assert "Done: 4.0 s of music" in status
    assert isinstance(state, PageState)
    assert state.labels == ("1: seed 3, fit 0.50", "2: seed 4, fit 0.50")
    assert Path(video["value"]).name == "my-film.v2m"
    assert video["label"] == "With music"
    assert (runner.jobs[0].recipe, runner.jobs[0].overrides["limits.duration"]) == ("sketch", 60.0)


def test_inpaint_adds_a_candidate_with_another_seed(handlers: Handlers, runner: StubRunner) -> None:
    state = scored(handlers)[1]
    status, state, *_ = list(handlers.inpaint(REQUEST, state, 1, 1.0, 2.5, *VALUES))[-1]
    assert "Done" in status
    assert state.labels[2:] == ("3: 1 to 2.5 s of 2 anew, seed 6",)
    request = runner.jobs[-1].controls.inpaint
    assert request is not None
    assert (request.start, request.end, request.source_path) == (1.0, 2.5, state.candidates[1].music)
    assert runner.jobs[-1].overrides["candidates"] == 1


@pytest.mark.parametrize(("start", "end"), [(None, None), (1.0, None), (2.0, 1.0)])
def test_inpaint_needs_a_rising_range(handlers: Handlers, runner: StubRunner, start: Any, end: Any) -> None:
    state = scored(handlers)[1]
    [(status, *_)] = handlers.inpaint(REQUEST, state, 0, start, end, *VALUES)
    assert "two seconds that rise" in status
    assert len(runner.jobs) == 1


def test_a_job_cancelled_while_queued_does_not_run(handlers: Handlers, runner: StubRunner) -> None:
    handlers.enqueue(REQUEST)
    assert "Cancelled" in handlers.cancel(REQUEST)
    [(status, *_)] = handlers.score(REQUEST, "a.mp4", "sketch", *VALUES)
    assert "Cancelled" in status
    assert runner.jobs == []


def test_an_error_is_an_escaped_sentence_without_backticks(handlers: Handlers, runner: StubRunner) -> None:
    runner.error = UsageError("`inpaint` 1:9 lies outside of <b>")
    status = scored(handlers)[0]
    assert status == "<p class=bad>“Part from second” 1:9 lies outside of &lt;b&gt;</p>"


def test_tags_fill_the_fields(handlers: Handlers) -> None:
    status, source, *fields = list(handlers.tag("a.mp4", "sketch", REQUEST))[-1]
    assert "tags were found" in status
    assert (source["value"], source["visible"]) == ("a.mp4", True)
    assert "jazz" in fields
    assert 90.0 in fields


def test_input_that_browsers_do_not_play_is_not_shown(handlers: Handlers) -> None:
    _, source, *fields = list(handlers.tag("a.mxf", "sketch", REQUEST))[-1]
    assert (source["value"], source["visible"]) == (None, False)
    assert "jazz" in fields


def test_preview_is_shown_beside_the_file_itself(handlers: Handlers) -> None:
    video, preview = Path("a.v2m.mov"), Path("a.v2m.preview.mp4")
    candidate = CandidateFiles(3, video, files=(video,), preview=preview)
    state = PageState(Path("a.mov"), "sketch", None, None, (candidate,), ("1: seed 3",))
    shown, _, files, *_ = handlers.show_candidate(state, 0)
    assert (shown["value"], files) == (str(preview), [str(video)])
    assert "a preview" in shown["label"]


@pytest.mark.parametrize("stem", ["𝔘" * 80, "長" * 80, "..."])
def test_output_name_leaves_room_for_the_names_beside_it(handlers: Handlers, runner: StubRunner, stem: str) -> None:
    handlers.enqueue(REQUEST)
    list(handlers.score(REQUEST, f"{stem}.MOV", "sketch", *VALUES))
    out = runner.jobs[0].out
    assert out is not None
    assert out.suffix == ".v2m"
    assert 0 < len(out.stem.encode()) <= 100
