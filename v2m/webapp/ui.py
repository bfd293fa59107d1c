"""Layout of the page and the wiring of its events."""

from __future__ import annotations

from typing import Any

import gradio as gr

from v2m.webapp import form, recipe_status
from v2m.webapp.form import FIELDS
from v2m.webapp.handlers import LOOKED_FOR, Page

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for tonic in TONICS for mode in ("major", "minor")]
LOUDNESS = [("−14 LUFS, social media", -14.0), ("−16, podcast", -16.0), ("−23, EBU R128", -23.0), ("as it is", None)]
ORIGINAL = [("only the music", "replace"), ("both", "keep"), ("both, music lower under speech", "duck")]
REPORT = "Cuts (red), beats (gray), sections, loudness and motion"
SWEEP = 600  # seconds between two looks at what Gradio keeps
# Its last line: of a press that was taken back while it waited, Gradio now and then says "Error" in each place.
CSS = """
#status progress {width: 100%; height: 12px; appearance: none; border: 0; border-radius: 6px; overflow: hidden}
#status progress, #status progress::-webkit-progress-bar {background: #8883}
#status progress::-webkit-progress-value {background: #2e6f95}
#status progress::-moz-progress-bar {background: #2e6f95}
#status p {margin: 2px 0}
#status .bad {color: #b3261e; font-weight: 600}
#report img {cursor: crosshair}
:is(#status, #takes, #result, #report, #hint, #files, #begin, #until, #anew) .wrap:has(> .error) {display: none}
"""


def build(page: Page, minutes: float) -> gr.Blocks:
    """The page as Gradio shows it; uploads are kept for `minutes`."""
    kept = (SWEEP, max(SWEEP, round(60 * minutes)))
    with gr.Blocks(title="v2m: music for your video", analytics_enabled=False, delete_cache=kept) as blocks:
        gr.Markdown("# v2m\nA video in, the same video with background music that fits it out.")
        with gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(label="Your video", sources=["upload"], elem_id="upload", height=280)
                if page.examples:
                    gr.Examples([[str(path)] for path in page.examples], [video], label="Or an example")
                recipe = gr.Radio([recipe_status.ALWAYS], value=recipe_status.ALWAYS, label="Recipe", elem_id="recipe")
                lacking = gr.Markdown(LOOKED_FOR, elem_id="lacking")
                with gr.Row():
                    make = gr.Button("Make music", variant="primary", elem_id="make")
                    stop = gr.Button("Cancel", variant="stop", elem_id="cancel")
                status = gr.HTML(elem_id="status")  # on a narrow screen, too, beside the buttons
                fields = _fields()
            with gr.Column(scale=3):
                takes = gr.Radio(visible=False, label="Takes to compare", elem_id="takes")
                result = gr.Video(label="With music", interactive=False, elem_id="result", height=400)
                report = gr.Image(
                    label=REPORT, show_label=False, type="filepath", format="png", interactive=False, elem_id="report",
                    buttons=["fullscreen"],
                )  # fmt: skip
                hint = gr.Markdown("", elem_id="hint")
                with gr.Row(equal_height=True):
                    begin = gr.Number(label="Part from second", value=None, elem_id="begin", min_width=120)
                    end = gr.Number(label="to second", value=None, elem_id="until", min_width=120)
                    anew = gr.Button("Write this part anew", variant="primary", interactive=False, elem_id="anew")
                files = gr.File(
                    label="Downloads", file_count="multiple", interactive=False, elem_id="files", height=300
                )
        made = gr.State(None)
        given = [fields[name] for name in FIELDS]
        tags = [fields[name] for name in form.shown({})]
        quiet: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        one: Any = {
            "concurrency_limit": 1, "concurrency_id": "desk", "show_progress": "hidden", "api_visibility": "private"
        }  # fmt: skip
        shown = [made, takes, result, report, files, begin, end, anew, hint]

        composing = make.click(page.press, None, status, **quiet).then(
            page.compose, [video, recipe, *given], [status, *shown], **one
        )
        rewriting = anew.click(page.press, None, status, **quiet).then(
            page.rewrite, [made, takes, begin, end, *given], [status, *shown], **one
        )
        looking = video.change(page.look, [video, recipe], [status, *tags], **one)
        stop.click(page.cancel, None, status, cancels=[composing, rewriting, looking], **quiet)
        last: Any = {**quiet, "trigger_mode": "always_last"}  # by itself Gradio drops what comes meanwhile
        takes.input(page.choose_take, [made, takes], shown[2:], **last)
        report.select(page.click, [made, takes, begin, end], [report, begin, end, anew], **last)
        for second in (begin, end):
            second.input(page.mark, [made, takes, begin, end], [report, anew], **last)
        blocks.load(page.usable, recipe, [recipe, lacking], **quiet)
        empty = [fields["tempo"], fields["start"], fields["end"], begin, end]
        blocks.load(lambda: [None] * len(empty), None, empty, **quiet)  # which Gradio shows as 0 at first
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
    with gr.Accordion("Controls", open=False, elem_id="controls"):
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
