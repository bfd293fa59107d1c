"""Two clicks on the report choose a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.pipeline.test_report import FULL
from v2m.media import video
from v2m.pipeline import report
from v2m.pipeline.report import Axis
from v2m.webapp.time_range import EDGE, Part, marked

AXIS = Axis(100.0, 1100.0, 0.0, 10.0)  # a hundred columns a second
BEATS = (1.0, 1.9, 2.8, 3.7)


@pytest.mark.parametrize(("columns", "part"), [
    ([205], Part(1.0)),
    ([205, 460], Part(1.0, 3.7)),
    ([460, 205], Part(1.0, 3.7)),
    ([205, 660], Part(1.0, 5.6)),
    ([205, 205], Part(1.0)),
    ([205, 460, 660], Part(5.6)),
    ([20, 1500], Part(0.0, 10.0)),
    ([120, 1090], Part(0.0, 10.0)),
])  # fmt: skip
def test_clicks_mean_beats_where_these_are_near(columns: list[float], part: Part) -> None:
    found = Part()
    for column in columns:
        found = found.clicked(AXIS, column, BEATS)
    assert found == part
    assert found.whole == (part.end is not None)


def test_a_part_is_marked_where_it_is_on_the_picture(clip: Path) -> None:
    path = clip.with_name("report.png")
    report.plot_report(path, video.open(clip), FULL)
    assert marked(path, Part()) == path
    first, both = (imread(marked(path, part))[..., :3] for part in (Part(1.0), Part(1.0, 3.0)))
    before, axis = imread(path)[..., :3], Axis.of(path)
    edge = np.array(EDGE[:3]) / 255
    for image, seconds in ((first, [1.0]), (both, [1.0, 3.0])):
        columns = np.flatnonzero((np.abs(image - edge).max(axis=2) < 0.02).all(axis=0))
        assert len(columns) == 3 * len(seconds)
        for second in seconds:
            assert np.abs(columns - axis.column(second)).min() < 2
    changed = np.abs(both - before).max(axis=(0, 2)) > 0.1
    low, high = (int(axis.column(second)) for second in (1.0, 3.0))
    assert changed[low : high + 1].all()
    assert not changed[: low - 2].any()
    assert not changed[high + 4 :].any()
    with pytest.raises(ValueError, match="is no report"):
        marked(marked(path, Part(1.0)), Part(2.0))
