"""Files of examples/: each runs through the real command, and the notebook's cells run in order."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import EXAMPLE
from v2m.cli.evaluate import main as evaluate
from v2m.cli.score import main as score

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def sidecar(clip: Path) -> dict:
    return json.loads(clip.with_name(f"{clip.stem}.v2m.json").read_text())


def test_custom_generator_writes_the_music(clip: Path) -> None:
    path = "examples.custom_generator.Pulse"
    assert score([str(clip), "--generator", path, "--generator.decay", "0.2", "--stems", "--tags.key", "A minor"]) == 0
    record = sidecar(clip)
    assert record["settings"]["generator"] == {"class_path": path, "init_args": {"decay": 0.2, "bells": True}}
    assert (record["music"]["style"], record["music"]["key"]) == ("pulse", "A minor")
    assert {path.stem for path in clip.parent.glob("cuts.v2m.stems/*.wav")} == {"pulse", "bells"}


def test_custom_generator_gives_the_same_audio_for_the_same_seed(clip: Path) -> None:
    from examples.custom_generator import Pulse
    from v2m.core.types import Tags
    from v2m.media import video

    clips = video.open(clip)
    takes = [Pulse().generate(clips, Tags(), seed, stems=True) for seed in (1, 1, 2)]
    assert (takes[0].audio.samples == takes[1].audio.samples).all()
    assert (takes[0].audio.samples != takes[2].audio.samples).any()
    assert len(takes[0].audio) == round(clips.duration * takes[0].audio.sample_rate)
    parts = sum(stem.samples for stem in takes[0].stems.values())
    assert parts == pytest.approx(takes[0].audio.samples, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--generator.decay", "-1"], "decay -1 must be above 0 seconds"),
        (["--midi"], "the generator Pulse cannot do --midi; it can do --stems"),
    ],
)
def test_custom_generator_refuses_what_it_cannot_do(
    clip: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score([str(clip), "--generator", "examples.custom_generator.Pulse", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("threshold", "genre"), [("0.01", "acoustic folk"), ("0.99", "ambient")])
def test_custom_tagger_chooses_by_brightness(clip: Path, threshold: str, genre: str) -> None:
    path = "examples.custom_tagger.DayOrNight"
    given = ["--tagger", path, "--tagger.threshold", threshold, "--tags.tempo", "99"]
    assert score([str(clip), *given]) == 0
    record = sidecar(clip)
    assert record["settings"]["tagger"]["class_path"] == path
    assert record["tags"]["genres"] == [genre]
    assert record["tags"]["tempo"] == 99  # what the user gives wins


def test_custom_embedder_measures_the_distance(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "ab":
        shutil.copy(clip, folder / f"{name}.mp4")
    path = "examples.custom_embedder.BandEnergies"
    assert evaluate([str(folder), "--ground-truth", str(folder), "--embedding", path]) == 0
    table = capsys.readouterr().out
    (row,) = [line.split("|") for line in table.splitlines() if line.startswith("| fad | band-energies ")]
    assert float(row[5].split()[0]) == pytest.approx(0, abs=1e-6)  # the music is the truth itself


def test_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "data" / "examples").mkdir(parents=True)
    shutil.copy(EXAMPLE, tmp_path / "data" / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    shown: list[str] = []
    stub = ModuleType("IPython.display")  # a notebook has the real one
    vars(stub).update(display=shown.append, Image=str, Video=lambda path, embed: path)
    package = ModuleType("IPython")
    vars(package)["version_info"] = (9, 0)  # matplotlib asks for it
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", stub)
    names: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(shown) == 4
    assert all(Path(path).is_file() for path in shown)


def test_notebook_holds_no_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None]
