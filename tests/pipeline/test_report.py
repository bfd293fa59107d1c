"""The report image of any soundtrack, and its time axis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from v2m.core.types import Audio, Section, Soundtrack
from v2m.media import video as videos
from v2m.pipeline import report

NOISE = np.random.default_rng(0).normal(0, 0.1, (2, 4 * 48_000)).astype(np.float32)
BARE = Soundtrack(Audio(NOISE, 48_000))  # all that a generator must give
FULL = replace(
    BARE,
    beats=np.arange(0, 4, 0.5),
    downbeats=np.arange(0, 4, 2.0),
    sections=(Section("intro", 0.0, 2.0), Section("A", 2.0, 4.0)),
    metadata={"style": "jazz", "key": "F minor", "alignment": {"n": 2, "hits": 0.5, "chance": 0.2}},
)


def drawn(path: Path) -> np.ndarray:
    import matplotlib.image

    return matplotlib.image.imread(path)[..., :3]


def color(image: np.ndarray, hex_color: str) -> int:
    """Count the pixels of a color."""
    rgb = np.array([int(hex_color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return int((np.abs(image - rgb).max(axis=2) < 0.02).sum())


def test_report_of_a_minimal_and_a_full_soundtrack(clip: Path) -> None:
    video = videos.open(clip)
    for score, name in ((BARE, "bare.png"), (FULL, "full.png")):
        report.plot_report(clip.with_name(name), video, score)
    bare, full = drawn(clip.with_name("bare.png")), drawn(clip.with_name("full.png"))
    assert bare.shape == full.shape
    assert color(bare, report.MUSIC) > 1000
    assert color(full, report.BEAT) > color(bare, report.BEAT) + 30


@pytest.mark.parametrize("name", [r"a$\\x$.mp4", "음악.mp4", "new\nline.mp4"])
def test_unusual_file_names_are_drawn(clip: Path, name: str) -> None:
    video = videos.open(clip.rename(clip.with_name(name)))
    report.plot_report(clip.with_name("report.png"), video, FULL)
    assert drawn(clip.with_name("report.png")).std() > 0.1


@pytest.mark.parametrize("start", [None, 1.0])
def test_axis_metadata_locates_each_second(clip: Path, start: float | None) -> None:
    """Cuts, at 1.2 and 2.6 s of the video, are drawn in their color in the columns that the file tells."""
    span = videos.open(clip).crop(start, None)
    path = clip.with_name("report.png")
    report.plot_report(path, span, Soundtrack(Audio(NOISE[:, : round(48_000 * span.duration)], 48_000)))
    axis, image = report.Axis.from_png(path), drawn(path)
    assert (axis.start, axis.end) == (start or 0.0, pytest.approx(4.0, abs=0.01))
    rgb = np.array([int(report.CUT[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    marked = (np.abs(image - rgb).max(axis=2) < 0.15).sum(axis=0)
    columns = np.flatnonzero(marked > 150)
    assert sorted({round(axis.to_seconds(column + 0.5), 1) for column in columns}) == [1.2, 2.6]
    for second in (1.2, 2.6):
        assert axis.to_seconds(axis.to_column(second)) == pytest.approx(second)
        assert np.abs(columns + 0.5 - axis.to_column(second)).min() < 2
    assert axis.to_seconds(-5) == axis.start
    assert axis.to_seconds(1e6) == axis.end


def test_image_without_axis_metadata_is_refused(tmp_path: Path) -> None:
    import matplotlib.image

    matplotlib.image.imsave(tmp_path / "other.png", np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"other.png is no report"):
        report.Axis.from_png(tmp_path / "other.png")


@pytest.mark.parametrize("seconds", [0.02, 0.3])
def test_very_short_music_is_drawn(clip: Path, seconds: float) -> None:
    span = videos.open(clip).crop(1.0, 1.0 + seconds)
    report.plot_report(
        clip.with_name("report.png"), span, Soundtrack(Audio(NOISE[:, : round(48_000 * seconds)], 48_000))
    )
    assert drawn(clip.with_name("report.png")).std() > 0.05
