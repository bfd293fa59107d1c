"""Event handlers of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from v2m.core.errors import UsageError
from v2m.pipeline.report import Axis
from v2m.webapp import form, html, recipe_status
from v2m.webapp.form import FIELDS, Form
from v2m.webapp.job_runner import CancelledTaskError, Desk
from v2m.webapp.recipe_status import Looked
from v2m.webapp.sessions import Rooms
from v2m.webapp.time_range import Part, marked
from v2m.webapp.worker import Done, Take, Task

LOOKED_FOR = "Which other recipes can be used is being looked at …"
PATH_LETTERS = "-_"
Shown = tuple[Any, ...]


@dataclass(frozen=True)
class Made:
    """The takes that there are, of one video by one recipe, each with its name; `start` and `end` as in `Form`."""

    source: Path
    recipe: str
    start: float | None
    end: float | None
    takes: tuple[Take, ...]
    names: tuple[str, ...]


@dataclass
class Page:
    """State that all visitors share.

    Args:
        seconds: The longest video.
        desk: Where the work is done, one task at a time.
        rooms: Where files lie.
        examples: Videos that can be picked.
    """

    seconds: float
    desk: Desk
    rooms: Rooms
    examples: tuple[Path, ...] = ()
    found: dict[str, Looked] = field(default_factory=lambda: {recipe_status.ALWAYS: recipe_status.READY})
    looked: bool = False
    _wanting: set[str] = field(default_factory=set)  # who pressed and has not cancelled since

    def look_for_recipes(self) -> None:
        """In the background: libraries of models take their time."""

        def look() -> None:
            for recipe, found in recipe_status.look_at_all():
                self.found[recipe] = found
            self.looked = True

        threading.Thread(target=look, daemon=True).start()

    def usable(self, chosen: str | None) -> tuple[Any, str]:
        """The choice of recipes as it is now, and a line on each that lacks something."""
        able = [recipe for recipe, found in self.found.items() if found.lack is None]
        lines = [f"* **{recipe}** is not at hand: {found.lack}" for recipe, found in self.found.items() if found.lack]
        chosen = chosen if chosen in able else recipe_status.ALWAYS
        return gr.Radio(choices=able, value=chosen), "\n".join(lines) + ("" if self.looked else f"\n\n{LOOKED_FOR}")

    def look(self, video: str | None, recipe: str, request: gr.Request) -> Iterator[Shown]:
        """The tags of a video, into the fields."""
        same = [gr.skip() for _ in form.shown({})]
        if not video:
            yield ("", *same)
            return
        task = Task(Path(video), recipe, Form().words(self.seconds), look=True)
        try:
            for line, done in self._told(task, request):
                if done is None:
                    yield (line, *same)
                else:
                    yield (html.line("These tags were found: change what you like"), *form.shown(done.tags).values())
        except (CancelledTaskError, UsageError) as error:
            yield (html.trouble(error), *same)

    def press(self, request: gr.Request) -> str:
        """Comes before `compose` and `rewrite`, which wait for their turn."""
        self._wanting.add(_owner(request))
        return html.line(html.WAITING)

    def compose(self, request: gr.Request, video: str | None, recipe: str, *values: Any) -> Iterator[Shown]:
        """Status, and what `_shown` gives of the takes."""
        if not video:
            yield (html.line("Choose a video first", bad=True), *_same())
            return
        if _owner(request) not in self._wanting:
            yield (html.line(html.CANCELLED), *_same())
            return
        asked, source = Form(**dict(zip(FIELDS, values, strict=True))), Path(video)
        yield (html.bar("Starting", 0, 0), *self._shown(None, None))
        begun = time.monotonic()
        try:
            for line, done in self._told(self._task(source, recipe, asked, request), request):
                if done is None:
                    yield (line, *_same())
                else:
                    made = Made(source, recipe, asked.start, asked.end, done.takes, _names(done))
                    summary = html.summary(done.record, time.monotonic() - begun)
                    yield (summary, *self._shown(made, 0))
        except (CancelledTaskError, UsageError) as error:
            yield (html.trouble(error), *_same())

    def rewrite(
        self, request: gr.Request, made: Made | None, number: int | None, begin: Any, end: Any, *values: Any
    ) -> Iterator[Shown]:
        """Inpaint `begin` to `end` of take `number` as one more take; yields like `compose`."""
        part = Part(begin, end)
        if made is None or number is None or not self._can(made, part):
            yield (html.line("Choose a part of the music first: two seconds that rise", bad=True), *_same())
            return
        if _owner(request) not in self._wanting:
            yield (html.line(html.CANCELLED), *_same())
            return
        count = 1 + len(made.takes)  # another seed at each press
        asked = replace(Form(**dict(zip(FIELDS, values, strict=True))), takes=1, start=made.start, end=made.end)
        asked = replace(asked, seed=(asked.seed or 0) + count)
        kept = ("--inpaint", f"{part.begin:g}:{part.end:g}", "--inpaint-source", str(made.takes[number].music))
        begun = time.monotonic()
        try:
            task = self._task(made.source, made.recipe, asked, request)
            for line, done in self._told(replace(task, words=(*task.words, *kept)), request):
                if done is None:
                    yield (line, *_same())
                else:
                    name = f"{count}: {part.begin:g} to {part.end:g} s of {number + 1} anew, seed {done.takes[0].seed}"
                    more = replace(made, takes=(*made.takes, done.takes[0]), names=(*made.names, name))
                    summary = html.summary(done.record, time.monotonic() - begun)
                    yield (summary, *self._shown(more, len(made.takes)))
        except (CancelledTaskError, UsageError) as error:
            yield (html.trouble(error), *_same())

    def choose_take(self, made: Made | None, number: int | None) -> Shown:
        """Video, report, files, part and button of another take."""
        return _same()[2:] if made is None or number is None else self._shown(made, number)[2:]

    def click(self, event: gr.SelectData, made: Made | None, number: int | None, begin: Any, end: Any) -> Shown:
        """Report, part and button after a click on the report."""
        if made is None or number is None or not isinstance(event.index, list | tuple):
            return (gr.skip(),) * 4
        take = made.takes[number]
        try:
            part = Part(begin, end).clicked(Axis.of(take.report), float(event.index[0]), take.beats)
        except (OSError, ValueError):  # its time is over
            return (gr.skip(),) * 4
        return (self.mark(made, number, part.begin, part.end)[0], part.begin, part.end, self._button(made, part))

    def mark(self, made: Made | None, number: int | None, begin: Any, end: Any) -> Shown:
        """Report and button for a part that was typed."""
        if made is None or number is None:
            return gr.skip(), gr.skip()
        part = Part(begin, end)
        try:
            return str(marked(made.takes[number].report, part)), self._button(made, part)
        except (OSError, ValueError):
            return gr.skip(), self._button(made, part)

    def cancel(self, request: gr.Request) -> str:
        self._wanting.discard(_owner(request))
        self.desk.cancel(_owner(request))
        return html.line(html.CANCELLED)

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self._wanting.discard(_owner(request))
        self.desk.cancel(_owner(request))
        self.rooms.leave(_owner(request))

    def _task(self, source: Path, recipe: str, asked: Form, request: gr.Request) -> Task:
        out = self.rooms.new(_owner(request)) / f"{_stem(source)}.v2m{_suffix(source)}"
        return Task(source, recipe, asked.words(self.seconds), out)

    def _told(self, task: Task, request: gr.Request) -> Iterator[tuple[str, Done | None]]:
        stage, share, begun = "Starting", 0.0, time.monotonic()
        for kind, value in self.desk.run(task, _owner(request)):
            if kind == "done":
                yield "", value
                return
            if kind == "stage":
                stage, share, begun = value, 0.0, time.monotonic()
            elif kind == "progress":
                share = value
            yield html.bar(stage, share, time.monotonic() - begun), None

    def _shown(self, made: Made | None, number: int | None) -> Shown:
        """All takes, their choice; of take `number` video, report, files, no part, and the button with a hint."""
        if made is None or number is None:
            return None, gr.Radio(choices=[], value=None, visible=False), None, None, None, None, None, _off(), ""
        take = made.takes[number]
        choices = [(name, place) for place, name in enumerate(made.names)]
        choice = gr.Radio(choices=choices, value=number, visible=len(choices) > 1)
        files = [str(path) for path in take.files]
        hint = html.HOW if self._steers(made) else f"The recipe {made.recipe} cannot write a part anew."
        return made, choice, str(take.video), str(take.report), files, None, None, _off(), hint

    def _button(self, made: Made, part: Part) -> Any:
        return gr.Button(interactive=self._can(made, part))

    def _can(self, made: Made, part: Part) -> bool:
        return part.whole and self._steers(made)

    def _steers(self, made: Made) -> bool:
        return "inpaint" in self.found[made.recipe].steers


def _off() -> Any:
    return gr.Button(interactive=False)


def _same() -> Shown:
    """In the place of what `Page._shown` gives."""
    return (gr.skip(),) * 9


def _names(done: Done) -> tuple[str, ...]:
    return tuple(
        f"{number + 1}: seed {take.seed}" + (f", fit {take.fit:.2f}" if take.fit is not None else "")
        for number, take in enumerate(done.takes)
    )


def _owner(request: gr.Request) -> str:
    return str(request.session_hash)


def _stem(path: Path) -> str:
    plain = "".join(letter if letter.isalnum() or letter in PATH_LETTERS else "-" for letter in path.stem)
    return plain.strip("-")[:60] or "video"


def _suffix(path: Path) -> str:
    """A container that browsers play where the pictures may stay as they are; else the video's own."""
    return ".mp4" if path.suffix.lower() in {".mp4", ".m4v", ".mov", ".gif", ".apng"} else path.suffix.lower() or ".mp4"
