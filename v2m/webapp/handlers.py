"""Event handlers of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from v2m.core.atomic import MADE_SUFFIX
from v2m.core.errors import UsageError
from v2m.core.types import Controls, InpaintRequest
from v2m.pipeline import recipe_status
from v2m.pipeline.job_runner import CandidateFiles, Job, JobCancelledError, JobResult, JobRunner
from v2m.pipeline.recipe_status import RecipeStatus
from v2m.pipeline.recipes import DEFAULT_RECIPE
from v2m.pipeline.report import Axis
from v2m.webapp import html
from v2m.webapp.form import FIELDS, Form, TimeRange, tag_fields
from v2m.webapp.sessions import SessionFolders

CHECKING_RECIPES = "Which other recipes can be used is being looked at …"
WITH_MUSIC = "With music"
PREVIEW_LABEL = "With music: a preview. The file itself, which browsers do not play, is among the downloads"
MAX_STEM_BYTES = 100  # of an output's name, far below what file systems take
Values = tuple[Any, ...]  # for the components that an event updates


@dataclass(frozen=True)
class PageState:
    """The candidates of one video by one recipe, each with its label; `start` and `end` as in `Form`."""

    source: Path
    recipe: str
    start: float | None
    end: float | None
    candidates: tuple[CandidateFiles, ...]
    labels: tuple[str, ...]


@dataclass
class Handlers:
    """Handlers and the state that all visitors share; `max_seconds` is the longest video."""

    max_seconds: float
    runner: JobRunner
    folders: SessionFolders
    examples: tuple[Path, ...] = ()
    statuses: dict[str, RecipeStatus] = field(default_factory=lambda: {DEFAULT_RECIPE: recipe_status.READY})
    statuses_known: bool = False
    _queued: set[str] = field(default_factory=set)  # sessions that pressed a button and have not cancelled since

    def check_recipes(self) -> None:
        """Check all recipes in the background: libraries of models take their time."""

        def check() -> None:
            for recipe, status in recipe_status.check_all_recipes():
                self.statuses[recipe] = status
            self.statuses_known = True

        threading.Thread(target=check, daemon=True).start()

    def recipe_choices(self, chosen: str | None) -> tuple[Any, str]:
        """Return the choice of recipes as it is now, and a line on each that lacks something."""
        usable = [recipe for recipe, status in self.statuses.items() if status.missing is None]
        missing = {recipe: status.missing for recipe, status in self.statuses.items() if status.missing}
        lines = [f"* **{recipe}** is not at hand: {reason}" for recipe, reason in missing.items()]
        note = "" if self.statuses_known else f"\n\n{CHECKING_RECIPES}"
        return gr.Radio(choices=usable, value=chosen if chosen in usable else DEFAULT_RECIPE), "\n".join(lines) + note

    def tag(self, video: str | None, recipe: str, request: gr.Request) -> Iterator[Values]:
        """Show a video where browsers play it, and fill the fields with its tags."""
        unchanged = [gr.skip() for _ in ("source", *tag_fields({}))]
        if not video:
            yield ("", gr.update(value=None, visible=False), *unchanged[1:])
            return
        try:
            for status, result in self._run(self._job(Path(video), recipe, Form(), Controls()), request):
                if result is None:
                    yield (status, *unchanged)
                    continue
                source = gr.update(value=video if result.is_playable else None, visible=result.is_playable)
                done = html.paragraph("These tags were found: change what you like")
                yield (done, source, *tag_fields(result.tags).values())
        except (JobCancelledError, UsageError) as error:
            yield (html.error_message(error), gr.update(value=None, visible=False), *unchanged[1:])

    def enqueue(self, request: gr.Request) -> str:
        """Note that a session waits for its turn; `score` and `inpaint` follow."""
        self._queued.add(_session(request))
        return html.paragraph(html.WAITING)

    def score(self, request: gr.Request, video: str | None, recipe: str, *values: Any) -> Iterator[Values]:
        """Yield the status and what `_show` gives of the candidates."""
        if not video:
            yield (html.paragraph("Choose a video first", is_error=True), *_unchanged())
            return
        form = Form(**dict(zip(FIELDS, values, strict=True)))

        def new_state(result: JobResult) -> PageState:
            candidates = result.candidates
            fits = ["" if candidate.sync is None else f", fit {candidate.sync:.2f}" for candidate in candidates]
            labels = (f"{n}: seed {candidate.seed}{fits[n - 1]}" for n, candidate in enumerate(candidates, start=1))
            return PageState(Path(video), recipe, form.start, form.end, candidates, tuple(labels))

        yield from self._score(request, self._job(Path(video), recipe, form, form.controls()), new_state)

    def inpaint(
        self, request: gr.Request, state: PageState | None, index: int | None, start: Any, end: Any, *values: Any
    ) -> Iterator[Values]:
        """Inpaint `start` to `end` of candidate `index` as one more candidate; yields like `score`."""
        if state is None or index is None or not (TimeRange(start, end).is_complete and self._inpaints(state)):
            message = "Choose a part of the music first: two seconds that rise"
            yield (html.paragraph(message, is_error=True), *_unchanged())
            return
        count = 1 + len(state.candidates)
        form = Form(**dict(zip(FIELDS, values, strict=True)))
        seed = (form.seed or 0) + count  # another at each press
        form = replace(form, candidates=1, start=state.start, end=state.end, seed=seed)
        source = InpaintRequest(start, end, state.candidates[index].music)

        def new_state(result: JobResult) -> PageState:
            candidate = result.candidates[0]
            label = f"{count}: {start:g} to {end:g} s of {index + 1} anew, seed {candidate.seed}"
            return replace(state, candidates=(*state.candidates, candidate), labels=(*state.labels, label))

        controls = replace(form.controls(), inpaint=source)
        yield from self._score(request, self._job(state.source, state.recipe, form, controls), new_state)

    def show_candidate(self, state: PageState | None, index: int | None) -> Values:
        """Return video, report, files, range and button of another candidate."""
        return _unchanged()[2:] if state is None or index is None else self._show(state, index)[2:]

    def click_report(
        self, event: gr.SelectData, state: PageState | None, index: int | None, start: Any, end: Any
    ) -> Values:
        """Return report, range and button after a click on the report."""
        if state is None or index is None or not isinstance(event.index, list | tuple):
            return (gr.skip(),) * 4
        candidate = state.candidates[index]
        try:
            column = float(event.index[0])
            time_range = TimeRange(start, end).after_click(Axis.from_png(candidate.report), column, candidate.beats)
        except (OSError, ValueError):  # the files have expired
            return (gr.skip(),) * 4
        report, button = self.edit_range(state, index, time_range.start, time_range.end)
        return report, time_range.start, time_range.end, button

    def edit_range(self, state: PageState | None, index: int | None, start: Any, end: Any) -> Values:
        """Return report and button for a range that was typed."""
        if state is None or index is None:
            return gr.skip(), gr.skip()
        time_range = TimeRange(start, end)
        button = gr.Button(interactive=time_range.is_complete and self._inpaints(state))
        try:
            return str(time_range.draw_on(state.candidates[index].report)), button
        except (OSError, ValueError):
            return gr.skip(), button

    def cancel(self, request: gr.Request) -> str:
        self._queued.discard(_session(request))
        self.runner.cancel(_session(request))
        return html.paragraph(html.CANCELLED)

    def end_session(self, request: gr.Request) -> None:
        """Clean up after a visitor who has closed the page."""
        self.cancel(request)
        self.folders.remove(_session(request))

    def _job(self, source: Path, recipe: str, form: Form, controls: Controls) -> Job:
        return Job(source, recipe, form.overrides(self.max_seconds), controls)

    def _score(self, request: gr.Request, job: Job, new_state: Callable[[JobResult], PageState]) -> Iterator[Values]:
        """Run a job; yield the status and what `_show` gives. While it inpaints, what is shown stays."""
        if _session(request) not in self._queued:
            yield (html.paragraph(html.CANCELLED), *_unchanged())
            return
        start, inpaints = time.monotonic(), job.controls.inpaint is not None
        if not inpaints:
            yield (html.progress_bar("Starting", 0, 0), *self._show(None, None))
        out = self.folders.create(_session(request)) / _output_name(job.video)
        try:
            for status, result in self._run(replace(job, out=out), request):
                if result is None:
                    yield (status, *_unchanged())
                else:
                    state = new_state(result)
                    index = len(state.candidates) - 1 if inpaints else 0
                    yield (html.summary(result.record, time.monotonic() - start), *self._show(state, index))
        except (JobCancelledError, UsageError) as error:
            yield (html.error_message(error), *_unchanged())

    def _run(self, job: Job, request: gr.Request) -> Iterator[tuple[str, JobResult | None]]:
        stage, share, start = "Starting", 0.0, time.monotonic()
        for kind, value in self.runner.run(job, _session(request)):
            if kind == "done":
                yield "", value
                return
            if kind == "stage":
                stage, share, start = value, 0.0, time.monotonic()
            share = value if kind == "progress" else share
            yield html.progress_bar(stage, share, time.monotonic() - start), None

    def _show(self, state: PageState | None, index: int | None) -> Values:
        """Return the values of all outputs for candidate `index`, with no range chosen."""
        button = gr.Button(interactive=False)
        if state is None or index is None:
            return None, gr.Radio(choices=[], value=None, visible=False), None, None, None, None, None, button, ""
        candidate = state.candidates[index]
        choices = [(label, position) for position, label in enumerate(state.labels)]
        choice = gr.Radio(choices=choices, value=index, visible=len(choices) > 1)
        files = [str(path) for path in candidate.files]
        hint = html.INPAINT_HINT if self._inpaints(state) else f"The recipe {state.recipe} cannot write a part anew."
        label = PREVIEW_LABEL if candidate.preview else WITH_MUSIC
        video = gr.update(value=str(candidate.preview or candidate.video), label=label)
        return state, choice, video, str(candidate.report), files, None, None, button, hint

    def _inpaints(self, state: PageState) -> bool:
        return "inpaint" in self.statuses[state.recipe].capabilities


def _unchanged() -> Values:
    """Return a skip for each value of `Handlers._show`."""
    return (gr.skip(),) * 9


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _output_name(source: Path) -> str:
    """Return the outputs' name up to `.v2m`."""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in source.stem).strip("-")
    return f"{stem.encode()[:MAX_STEM_BYTES].decode(errors='ignore') or 'video'}{MADE_SUFFIX}"
