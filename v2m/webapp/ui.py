"""Layout of the page and the wiring of its events."""

from __future__ import annotations

from typing import Any

import gradio as gr

from v2m.pipeline.recipes import DEFAULT_RECIPE
from v2m.webapp import form
from v2m.webapp.form import FIELDS, LABELS
from v2m.webapp.handlers import CHECKING_RECIPES, WITH_MUSIC, Handlers

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for tonic in TONICS for mode in ("major", "minor")]
LOUDNESS = [("−14 LUFS, social media", -14.0), ("−16, podcast", -16.0), ("−23, EBU R128", -23.0), ("as it is", None)]
ORIGINAL = [("only the music", "replace"), ("both", "keep"), ("both, music lower under speech", "duck")]
REPORT = "Cuts (red), beats (gray), sections, loudness and motion"
CLEANUP_S = 600  # between two cleanups of Gradio's uploads
# Its last line: of a press that was taken back while it waited, Gradio now and then says "Error" in each place.
CSS = """
#status progress {width: 100%; height: 12px; appearance: none; border: 0; border-radius: 6px; overflow: hidden}
#status progress, #status progress::-webkit-progress-bar {background: #8883}
#status progress::-webkit-progress-value {background: #2e6f95}
#status progress::-moz-progress-bar {background: #2e6f95}
#status p {margin: 2px 0}
#status .bad {color: #b3261e; font-weight: 600}
#report img {cursor: crosshair}
:is(#status, #takes, #source, #result, #report, #hint, #files, #begin, #until, #anew)
 .wrap:has(> .error) {display: none}
"""


def build(handlers: Handlers, max_minutes: float) -> gr.Blocks:
    """Build the page; uploads are kept for `max_minutes`."""
    cleanup = (CLEANUP_S, max(CLEANUP_S, round(60 * max_minutes)))
    with gr.Blocks(title="v2m: music for your video", analytics_enabled=False, delete_cache=cleanup) as blocks:
        gr.Markdown("# v2m\nA video in, the same video with background music that fits it out.")
        with gr.Row():
            with gr.Column(scale=2):
                # A field of videos refuses what the browser does not know as one, such as .mxf and .LRV.
                video = gr.File(label="Your video, of any format", elem_id="upload", height=140)
                source = gr.Video(label="Your video", interactive=False, visible=False, elem_id="source", height=240)
                if handlers.examples:
                    gr.Examples([[str(path)] for path in handlers.examples], [video], label="Or an example")
                recipe = gr.Radio([DEFAULT_RECIPE], value=DEFAULT_RECIPE, label="Recipe", elem_id="recipe")
                missing = gr.Markdown(CHECKING_RECIPES, elem_id="lacking")
                with gr.Row():
                    score_button = gr.Button("Make music", variant="primary", elem_id="make")
                    cancel_button = gr.Button("Cancel", variant="stop", elem_id="cancel")
                status = gr.HTML(elem_id="status")  # on a narrow screen, too, beside the buttons
                fields = _fields()
            with gr.Column(scale=3):
                candidates = gr.Radio(visible=False, label="Takes to compare", elem_id="takes")
                result = gr.Video(label=WITH_MUSIC, interactive=False, elem_id="result", height=400)
                report = gr.Image(
                    label=REPORT, show_label=False, type="filepath", format="png", interactive=False, elem_id="report",
                    buttons=["fullscreen"],
                )  # fmt: skip
                hint = gr.Markdown("", elem_id="hint")
                with gr.Row(equal_height=True):
                    range_start = gr.Number(label=LABELS["inpaint"], value=None, elem_id="begin", min_width=120)
                    range_end = gr.Number(label="to second", value=None, elem_id="until", min_width=120)
                    inpaint_button = gr.Button(
                        "Write this part anew", variant="primary", interactive=False, elem_id="anew"
                    )
                many: Any = {"file_count": "multiple", "interactive": False}
                files = gr.File(label="Downloads", elem_id="files", height=300, **many)
        state = gr.State(None)
        values, tags = ([fields[name] for name in names] for names in (FIELDS, form.tag_fields({})))
        hidden: Any = {"show_progress": "hidden", "api_visibility": "private"}
        quiet: Any = {"queue": False, **hidden}
        as_job: Any = {"concurrency_limit": 1, "concurrency_id": "job", **hidden}
        outputs = [state, candidates, result, report, files, range_start, range_end, inpaint_button, hint]
        selection = [state, candidates, range_start, range_end]

        queued = score_button.click(handlers.enqueue, None, status, **quiet)
        scoring = queued.then(handlers.score, [video, recipe, *values], [status, *outputs], **as_job)
        queued = inpaint_button.click(handlers.enqueue, None, status, **quiet)
        inpainting = queued.then(handlers.inpaint, [*selection, *values], [status, *outputs], **as_job)
        tagging = video.change(handlers.tag, [video, recipe], [status, source, *tags], **as_job)
        cancel_button.click(handlers.cancel, None, status, cancels=[scoring, inpainting, tagging], **quiet)
        last: Any = {**quiet, "trigger_mode": "always_last"}  # by itself Gradio drops what comes meanwhile
        candidates.input(handlers.show_candidate, [state, candidates], outputs[2:], **last)
        report.select(handlers.click_report, selection, [report, range_start, range_end, inpaint_button], **last)
        for second in (range_start, range_end):
            second.input(handlers.edit_range, selection, [report, inpaint_button], **last)
        blocks.load(handlers.recipe_choices, recipe, [recipe, missing], **quiet)
        empty = [fields["tempo"], fields["start"], fields["end"], range_start, range_end]
        blocks.load(lambda: [None] * len(empty), None, empty, **quiet)  # which Gradio shows as 0 at first
        gr.Timer(5).tick(handlers.recipe_choices, recipe, [recipe, missing], **quiet)
        blocks.unload(handlers.end_session)
    return blocks


def _fields() -> dict[str, Any]:
    """Build a component for each field of a `Form`."""
    fields: dict[str, Any] = {}
    with gr.Accordion("What the music should be", open=True):
        fields["caption"] = gr.Textbox(lines=1, **_named("caption"))
        with gr.Row():
            fields["genres"] = gr.Textbox(placeholder="cinematic, ambient", **_named("genres"))
            fields["instruments"] = gr.Textbox(placeholder="piano, strings", **_named("instruments"))
        with gr.Row():
            fields["moods"] = gr.Textbox(placeholder="calm", **_named("moods"))
            fields["timbres"] = gr.Textbox(placeholder="warm", **_named("timbres"))
        with gr.Row():
            fields["tempo"] = gr.Number(value=None, **_named("tempo"))
            fields["key"] = gr.Dropdown(KEYS, value=None, allow_custom_value=True, **_named("key"))
        fields["negative"] = gr.Textbox(placeholder="drums", **_named("negative"))
    with gr.Accordion("Controls", open=False, elem_id="controls"):
        with gr.Row():
            fields["seed"] = gr.Number(value=0, precision=0, minimum=0, **_named("seed"))
            fields["candidates"] = gr.Slider(1, form.MAX_CANDIDATES, 1, step=1, **_named("candidates", "count"))
        with gr.Row():
            fields["melody"] = gr.File(file_types=["audio"], height=90, **_named("melody"))
            fields["reference"] = gr.File(file_types=["audio"], height=90, **_named("reference"))
        fields["vocals"] = gr.Checkbox(**_named("vocals"))
        fields["lyrics"] = gr.Textbox(lines=3, **_named("lyrics"))
    with gr.Accordion("Mix", open=False):
        with gr.Row():
            fields["original"] = gr.Dropdown(ORIGINAL, value="replace", **_named("original", "own"))
            fields["lufs"] = gr.Dropdown(LOUDNESS, value=-14.0, **_named("lufs"))
        with gr.Row():
            fields["start"] = gr.Number(value=None, **_named("start"))
            fields["end"] = gr.Number(value=None, **_named("end"))
    return fields


def _named(field: str, elem_id: str | None = None) -> dict[str, Any]:
    return {"label": LABELS[field], "elem_id": elem_id or field}
