"""Fields of the page become overrides of a recipe; clicks on the report select a range."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.pipeline.test_report import FULL
from v2m.core.types import Tags
from v2m.media import video
from v2m.pipeline import report
from v2m.pipeline.recipes import Recipe, load_recipe
from v2m.pipeline.report import Axis
from v2m.webapp.form import EDGE_COLOR, Form, TimeRange, tag_fields

AXIS = Axis(100.0, 1100.0, 0.0, 10.0)  # a hundred columns a second
BEATS = (1.0, 1.9, 2.8, 3.7)


def loaded(form: Form) -> Recipe:
    return load_recipe("sketch", form.overrides(60.0))


def test_empty_form_sets_nothing() -> None:
    recipe = loaded(Form())
    assert recipe.tags == Tags()
    assert (recipe.seed, recipe.candidates, recipe.start, recipe.end) == (0, 1, None, None)
    assert recipe.limits.duration == 60.0
    assert Form().controls().requested == frozenset()


def test_every_field_reaches_the_recipe(tmp_path: Path) -> None:
    tune = tmp_path / "tune.wav"
    form = Form(
        caption="- a dog: it runs", genres="lo-fi, jazz", instruments="piano", tempo=90.5, key="F# minor",
        negative="drums", melody=str(tune), reference="style.wav", seed=7, candidates=9, original="duck", lufs=None,
        start=1.5, end=3, vocals=True, lyrics="[verse]\nla, la: la",
    )  # fmt: skip
    recipe = loaded(form)
    tags = recipe.tags
    assert (tags.caption, tags.genres, tags.tempo) == ("- a dog: it runs", ("lo-fi", "jazz"), 90.5)
    assert (tags.key, tags.negative, tags.vocals, tags.lyrics) == ("F# minor", ("drums",), True, "[verse]\nla, la: la")
    assert (form.controls().melody, form.controls().reference) == (tune, (Path("style.wav"),))
    assert (recipe.seed, recipe.candidates, recipe.start, recipe.end) == (7, 4, 1.5, 3.0)
    assert (recipe.mix.original, recipe.mix.lufs) == ("duck", None)


@pytest.mark.parametrize("text", ["[a, b", "{x: 1}", "!!python/object:os.system x", "--overwrite", "null", "1e3"])
def test_typed_text_is_never_parsed(text: str) -> None:
    assert loaded(Form(caption=text)).tags.caption == text
    assert loaded(Form(lyrics=text)).tags.lyrics == text
    assert loaded(Form(genres=text)).tags.genres == Tags(genres=text).genres


def test_tag_fields_round_trip() -> None:
    tags = Tags(caption="x", genres=("a", "b"), tempo=100.0, key="C major", negative=("drums",))
    names = {field.name for field in dataclasses.fields(Form)}
    shown = {name: value for name, value in tag_fields(tags.to_dict()).items() if name in names}
    assert loaded(Form(**shown)).tags == tags


@pytest.mark.parametrize(("columns", "expected"), [
    ([205], TimeRange(1.0)),
    ([205, 460], TimeRange(1.0, 3.7)),
    ([460, 205], TimeRange(1.0, 3.7)),
    ([205, 660], TimeRange(1.0, 5.6)),
    ([205, 205], TimeRange(1.0)),
    ([205, 460, 660], TimeRange(5.6)),
    ([20, 1500], TimeRange(0.0, 10.0)),
    ([120, 1090], TimeRange(0.0, 10.0)),
])  # fmt: skip
def test_clicks_snap_to_near_beats_and_ends(columns: list[float], expected: TimeRange) -> None:
    chosen = TimeRange()
    for column in columns:
        chosen = chosen.after_click(AXIS, column, BEATS)
    assert chosen == expected
    assert chosen.is_complete == (expected.end is not None)


def test_range_is_drawn_at_its_seconds_on_the_report(clip: Path) -> None:
    path = clip.with_name("report.png")
    report.plot_report(path, video.open(clip), FULL)
    assert TimeRange().draw_on(path) == path
    first, both = (imread(chosen.draw_on(path))[..., :3] for chosen in (TimeRange(1.0), TimeRange(1.0, 3.0)))
    before, axis = imread(path)[..., :3], Axis.from_png(path)
    edge = np.array(EDGE_COLOR[:3]) / 255
    for image, seconds in ((first, [1.0]), (both, [1.0, 3.0])):
        columns = np.flatnonzero((np.abs(image - edge).max(axis=2) < 0.02).all(axis=0))
        assert len(columns) == 3 * len(seconds)
        for second in seconds:
            assert np.abs(columns - axis.to_column(second)).min() < 2
    changed = np.abs(both - before).max(axis=(0, 2)) > 0.1
    low, high = (int(axis.to_column(second)) for second in (1.0, 3.0))
    assert changed[low : high + 1].all()
    assert not changed[: low - 2].any()
    assert not changed[high + 4 :].any()
    with pytest.raises(ValueError, match="is no report"):
        TimeRange(2.0).draw_on(TimeRange(1.0).draw_on(path))
