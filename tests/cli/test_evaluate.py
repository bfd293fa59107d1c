"""`v2m evaluate`: a table from real files, and one-line errors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.bars import bars
from v2m.cli.evaluate import evaluate_file, main
from v2m.core import errors
from v2m.evaluation.per_clip import METRICS
from v2m.media import video
from v2m.mixing import mixer


@pytest.fixture(scope="module")
def systems(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with the same video: `on` has a beat on each of its cuts at 1.2 and 2.6 s, `off` between them."""
    folder = tmp_path_factory.mktemp("systems")
    clip = video.open(media / "cuts.mp4")
    for name, first in (("on", 0.15), ("off", 0.325)):
        (folder / name).mkdir()
        beats = np.arange(first, 3.9, 0.35)
        music = bars(beats, np.arange(len(beats)) % 4 == 3, 4.0)
        mixer.mix(clip, music, folder / name / "cuts.v2m.mp4")
        tags = {"tags": {"tempo": 60 / 0.35, "key": "C major"}}
        (folder / name / "cuts.v2m.json").write_text(json.dumps(tags))
    return folder


def test_row_has_every_metric_with_the_expected_values(systems: Path) -> None:
    on, off = (evaluate_file(systems / name / "cuts.v2m.mp4") for name in ("on", "off"))
    assert list(on) == list(METRICS)
    assert on["cuts"] == 2
    assert on["hits_70ms"] == 1
    assert off["hits_70ms"] == 0
    assert on["gain_70ms"] == pytest.approx(1 - (on["chance_70ms"] or 0))
    assert on["tempo_error"] == pytest.approx(0, abs=0.03)
    assert on["lufs"] == pytest.approx(-14, abs=0.5)
    assert on["length_error_ms"] == pytest.approx(0, abs=25)
    assert on["silence"] == pytest.approx(0, abs=0.05)


def test_systems_are_compared_on_shared_videos_with_all_values_in_the_csv(
    systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.csv"
    assert main(["--compare", str(systems / "on"), str(systems / "off"), "--csv", str(out)]) == errors.OK
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("| hits_70ms"))
    assert "| -1 [-1, -1] | 1 |" in line
    assert all(f"* {name}: " in printed for name in METRICS)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(Path(row["system"]).name, row["video"]) for row in rows] == [("on", "cuts"), ("off", "cuts")]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], errors.USAGE, "name videos or folders of them, or --compare"),
        (["on", "--compare", "on", "off"], errors.USAGE, "name videos or folders"),
        (["--compare", "on"], errors.USAGE, "give two folders or more"),
        (["--compare", "on", "gone"], errors.USAGE, "'gone' is no folder"),
        (["on", "off"], errors.USAGE, "more than one video of that name"),
        (["on", "--csv", "on/cuts.v2m.json"], errors.USAGE, "exists already"),
        (["--compare", "on", "other"], errors.USAGE, "no video of the same name"),
        (["gone"], errors.USAGE, "does not exist"),
        (["empty"], errors.INPUT_REFUSED, "holds no videos"),
        (["silent.mp4"], errors.INPUT_REFUSED, "has no sound"),
        (["on/cuts.v2m.json"], errors.INPUT_REFUSED, "cuts.v2m.json"),
        (["--cmpare", "on"], errors.USAGE, "did you mean --compare"),
    ],
)
def test_invalid_usage_gives_one_line(  # noqa: PLR0917 - a row, and where it is tried
    words: list[str],
    code: int,
    message: str,
    systems: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.conftest import ffmpeg

    for name in ("on", "off"):
        shutil.copytree(systems / name, tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    ffmpeg("-i", systems / "on" / "cuts.v2m.mp4", "-c", "copy", "-an", tmp_path / "silent.mp4")
    shutil.copy(systems / "on" / "cuts.v2m.mp4", tmp_path / "other" / "another.mp4")
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("v2m evaluate: ")


def test_unreadable_sidecar_is_ignored(systems: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(systems / "on" / "cuts.v2m.mp4", tmp_path))
    path.with_suffix(".json").write_text('{"tags": {"tempo": "fast"')
    assert evaluate_file(path)["tempo_error"] is None
