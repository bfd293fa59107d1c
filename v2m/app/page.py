"""The page itself: what is where, and what happens at a press."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from v2m.app import form, recipes
from v2m.app.desk import CancelledTaskError, Desk
from v2m.app.form import FIELDS, Form
from v2m.app.rooms import Rooms
from v2m.app.worker import Done, Task
from v2m.errors import UsageError

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for tonic in TONICS for mode in ("major", "minor")]
LOUDNESS = [("−14 LUFS, social media", -14.0), ("−16, podcast", -16.0), ("−23, EBU R128", -23.0), ("as it is", None)]
ORIGINAL = [("only the music", "replace"), ("both", "keep"), ("both, music lower under speech", "duck")]
WAITING, LOOKED_FOR = "Waiting for its turn", "Which other recipes can be used is being looked at …"
CSS = """
#status progress {width: 100%; height: 14px; accent-color: #2e6f95}
#status p {margin: 2px 0}
#status .bad {color: #b3261e; font-weight: 600}
"""


@dataclass
class Page:
    """What all visitors share.

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
    lacking: dict[str, str | None] = field(default_factory=lambda: {recipes.ALWAYS: None})
    looked: bool = False

    def look_for_recipes(self) -> None:
        """In the background: libraries of models take their time."""

        def look() -> None:
            for recipe, lack in recipes.all_lacking():
                self.lacking[recipe] = lack
            self.looked = True

        threading.Thread(target=look, daemon=True).start()

    def usable(self, chosen: str | None) -> tuple[Any, str]:
        """The choice of recipes as it is now, and a line on each that lacks something."""
        able = [recipe for recipe, lack in self.lacking.items() if lack is None]
        lines = [f"* **{recipe}** is not at hand: {lack}" for recipe, lack in self.lacking.items() if lack]
        chosen = chosen if chosen in able else recipes.ALWAYS
        return gr.Radio(choices=able, value=chosen), "\n".join(lines if self.looked else [*lines, LOOKED_FOR])

    def look(self, video: str | None, recipe: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """The tags of a video, into the fields."""
        same = [gr.skip() for _ in form.shown({})]
        if not video:
            yield ("", *same)
            return
        task = Task(Path(video), recipe, Form().words(self.seconds), look=True)
        try:
            for line, done in self._told(task, request):
                yield (
                    (line, *same)
                    if done is None
                    else (_said("These tags were found: change what you like"), *form.shown(done.tags).values())
                )
        except (CancelledTaskError, UsageError) as error:
            yield (_said(str(error) or "Cancelled", bad=True), *same)

    def compose(self, request: gr.Request, video: str | None, recipe: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Status, takes to choose from, the video, the report and the files."""
        rest: tuple[Any, ...] = (gr.skip(),) * 5
        if not video:
            yield (_said("Choose a video first", bad=True), *rest)
            return
        asked = Form(**dict(zip(FIELDS, values, strict=True)))
        source = Path(video)
        out = self.rooms.new(_owner(request)) / f"{_stem(source)}.v2m{_suffix(source)}"
        yield (_said(WAITING), gr.Radio(visible=False), None, None, None, [])
        begun = time.monotonic()
        try:
            for line, done in self._told(Task(source, recipe, asked.words(self.seconds), out), request):
                if done is None:
                    yield (line, *rest)
                else:
                    said = _said(_summary(done, time.monotonic() - begun))
                    yield (said, _choice(done), str(done.takes[0].video), _path(done.report), *_files(done))
        except CancelledTaskError:
            yield (_said("Cancelled"), *rest)
        except UsageError as error:
            yield (_said(str(error), bad=True), *rest)

    def cancel(self, request: gr.Request) -> str:
        return _said("Cancelled") if self.desk.cancel(_owner(request)) else _said("")

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.desk.cancel(_owner(request))
        self.rooms.leave(_owner(request))

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
            yield _bar(stage, share, time.monotonic() - begun), None


def build(page: Page) -> gr.Blocks:
    """The page as Gradio shows it."""
    with gr.Blocks(title="v2m: music for your video", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown("# v2m\nA video in, the same video with background music that fits it out.")
        with gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(label="Your video", sources=["upload"], elem_id="upload", height=280)
                if page.examples:
                    gr.Examples([[str(path)] for path in page.examples], [video], label="Or an example")
                recipe = gr.Radio([recipes.ALWAYS], value=recipes.ALWAYS, label="Recipe", elem_id="recipe")
                lacking = gr.Markdown(LOOKED_FOR, elem_id="lacking")
                with gr.Row():
                    make = gr.Button("Make music", variant="primary", elem_id="make")
                    stop = gr.Button("Cancel", variant="stop", elem_id="cancel")
                fields = _fields()
            with gr.Column(scale=3):
                status = gr.HTML(elem_id="status")
                takes = gr.Radio(visible=False, label="Takes, the best first", elem_id="takes")
                result = gr.Video(label="With music", interactive=False, elem_id="result", height=400)
                report = gr.Image(
                    label="Cuts (red), beats (grey), sections, loudness and motion",
                    show_label=False,
                    type="filepath",
                    format="png",
                    interactive=False,
                    elem_id="report",
                    buttons=["fullscreen"],
                )
                files = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="files")
        made = gr.State([])
        inputs = [video, recipe, *(fields[name] for name in FIELDS)]
        tags = [fields[name] for name in form.shown({})]
        one: Any = {
            "concurrency_limit": 1,
            "concurrency_id": "desk",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        quiet: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        composing = make.click(page.compose, inputs, [status, takes, result, report, files, made], **one)
        looking = video.change(page.look, [video, recipe], [status, *tags], **one)
        stop.click(page.cancel, None, status, cancels=[composing, looking], **quiet)
        takes.change(_watch, [takes, made], result, **quiet)
        blocks.load(page.usable, recipe, [recipe, lacking], **quiet)
        gr.Timer(5).tick(page.usable, recipe, [recipe, lacking], **quiet)
        blocks.unload(page.leave)
    return blocks


def _fields() -> dict[str, Any]:
    """A component for each field of a `Form`."""
    found: dict[str, Any] = {}
    with gr.Accordion("What the music should be", open=True):
        found["caption"] = gr.Textbox(label="What is seen", elem_id="caption", lines=1)
        with gr.Row():
            found["genres"] = gr.Textbox(label="Genres", elem_id="genres", placeholder="cinematic, ambient")
            found["instruments"] = gr.Textbox(label="Instruments", elem_id="instruments", placeholder="piano, strings")
        with gr.Row():
            found["moods"] = gr.Textbox(label="Moods", elem_id="moods", placeholder="calm")
            found["timbres"] = gr.Textbox(label="Timbres", elem_id="timbres", placeholder="warm")
        with gr.Row():
            found["tempo"] = gr.Number(label="Tempo, beats a minute", elem_id="tempo", value=None)
            found["key"] = gr.Dropdown(KEYS, label="Key", elem_id="key", value=None, allow_custom_value=True)
        found["negative"] = gr.Textbox(label="Without", elem_id="negative", placeholder="drums")
    with gr.Accordion("Steering", open=False):
        with gr.Row():
            found["seed"] = gr.Number(label="Seed", value=0, precision=0, minimum=0, elem_id="seed")
            found["takes"] = gr.Slider(1, form.MOST_TAKES, 1, step=1, label="Takes", elem_id="count")
        with gr.Row():
            found["melody"] = gr.File(label="Melody to follow", file_types=["audio"], elem_id="melody", height=90)
            found["reference"] = gr.File(label="Style to follow", file_types=["audio"], elem_id="reference", height=90)
        found["vocals"] = gr.Checkbox(label="With singing, where the recipe can", elem_id="vocals")
        found["lyrics"] = gr.Textbox(label="Words, under [verse] and [chorus]", lines=3, elem_id="lyrics")
    with gr.Accordion("Mix", open=False):
        with gr.Row():
            found["original"] = gr.Dropdown(ORIGINAL, value="replace", label="The video's own sound", elem_id="own")
            found["lufs"] = gr.Dropdown(LOUDNESS, value=-14.0, label="Loudness", elem_id="lufs")
        with gr.Row():
            found["start"] = gr.Number(label="Music from second", value=None, elem_id="start")
            found["end"] = gr.Number(label="to second", value=None, elem_id="end")
    return found


def _choice(done: Done) -> Any:
    """The takes by name, hidden where there is one alone."""
    names = [
        f"{number + 1}: seed {take.seed}" + (f", fit {take.fit:.2f}" if take.fit is not None else "")
        for number, take in enumerate(done.takes)
    ]
    return gr.Radio(choices=[(name, number) for number, name in enumerate(names)], value=0, visible=len(names) > 1)


def _watch(number: int | None, made: list[str]) -> Any:
    return made[number] if number is not None and number < len(made) else gr.skip()


def _files(done: Done) -> tuple[list[str], list[str]]:
    return [str(path) for path in done.files], [str(take.video) for take in done.takes]


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _bar(stage: str, share: float, seconds: float) -> str:
    left = f" · about {max(1, round(seconds / share * (1 - share)))} s left" if 0.05 < share < 1 and seconds > 1 else ""
    return f"<p>{html.escape(stage)} · {share:.0%}{left}</p><progress value='{share:.3f}' max='1'></progress>"


def _said(line: str, *, bad: bool = False) -> str:
    return f"<p{' class=bad' if bad else ''}>{html.escape(line)}</p>" if line else ""


def _summary(done: Done, seconds: float) -> str:
    record = done.record
    length = record["span"]["end"] - record["span"]["start"]
    facts = [f"{length:.1f} s of music in {seconds:.1f} s"]
    if record["mix"]["loudness"] is not None:
        facts.append(f"{record['mix']['loudness']:.1f} LUFS")
    if met := record["alignment"]:
        facts.append(f"{round(met['hits'] * met['n'])} of {met['n']} cuts on a beat")
    facts += [f"warning: {warning}" for warning in record["warnings"]]
    return "Done: " + ", ".join(facts)


def _owner(request: gr.Request) -> str:
    return str(request.session_hash)


def _stem(path: Path) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in path.stem)
    return plain.strip("-")[:60] or "video"


def _suffix(path: Path) -> str:
    """A container that browsers play where the pictures may stay as they are; else the video's own."""
    return ".mp4" if path.suffix.lower() in {".mp4", ".m4v", ".mov", ".gif", ".apng"} else path.suffix.lower() or ".mp4"
