"""Inpainting with the default recipe from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import EXAMPLE
from tests.fixtures.packets import packet_digest
from v2m.cli.score import main

START, END = 4.0, 9.0
RATE = 48_000


def score(out: Path, *flags: str) -> dict[str, Any]:
    assert main([str(EXAMPLE), "-o", str(out), "--wav", "--quiet", *flags]) == 0
    return json.loads(out.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scored")
    score(path / "old.mp4", "--seed", "1", "--candidates", "2")
    return path


def read_wav(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0].T


def assert_same_outside_the_range(old: np.ndarray, new: np.ndarray) -> None:
    low, high = (round(second * RATE) for second in (START, END))
    np.testing.assert_array_equal(new[:, :low], old[:, :low])
    np.testing.assert_array_equal(new[:, high:], old[:, high:])
    assert np.abs(new - old)[:, low:high].max() > 0.05


def test_inpainting_a_wav_keeps_the_rest_and_the_beats(folder: Path, tmp_path: Path) -> None:
    flags = ("--inpaint", f"{START}:{END}", "--inpaint-source", str(folder / "old.wav"), "--stems", "--midi")
    record = score(tmp_path / "new.mp4", *flags, "--seed", "5")
    before = json.loads((folder / "old.json").read_text())
    assert_same_outside_the_range(read_wav(folder / "old.wav"), read_wav(tmp_path / "new.wav"))
    assert packet_digest(tmp_path / "new.mp4") == packet_digest(EXAMPLE)
    for name in ("beats", "downbeats", "sections", "key", "style", "progressions"):
        assert record["music"][name] == before["music"][name]
    assert record["music"]["inpainted"] == [START, END]
    assert [row["seed"] for row in record["music"]["takes"]] == [before["seed"], 5]


def test_a_candidate_is_identified_by_its_seed(folder: Path, tmp_path: Path) -> None:
    (candidate,) = folder.glob("old.seed*.wav")
    flags = ("--inpaint", f"{START}:{END}", "--inpaint-source", str(candidate), "--seed", "5")
    record = score(tmp_path / "new.mp4", *flags)
    assert_same_outside_the_range(read_wav(candidate), read_wav(tmp_path / "new.wav"))
    assert [row["seed"] for row in record["music"]["takes"]] == [int(candidate.stem[-1]), 5]


def test_output_itself_can_be_inpainted_and_replaced(folder: Path, tmp_path: Path) -> None:
    for name in ("old.mp4", "old.json"):
        shutil.copy(folder / name, tmp_path)
    record = score(tmp_path / "old.mp4", "--inpaint", f"{START}:{END}", "--seed", "5", "--overwrite")
    assert record["music"]["inpaint_source"] == str(tmp_path / "old.mp4")
    old, new = read_wav(folder / "old.wav"), read_wav(tmp_path / "old.wav")
    correlations = [
        np.corrcoef(old[0, round(low * RATE) : round(high * RATE)], new[0, round(low * RATE) : round(high * RATE)])[
            0, 1
        ]
        for low, high in ((1, START), (START + 0.7, END - 0.7), (END, 15))
    ]
    assert min(correlations[0], correlations[2]) > 0.97, "except for AAC and mastering"
    assert correlations[1] < 0.8


def test_wav_without_sidecar_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "old.wav", tmp_path)
    flags = ["--inpaint", "4:9", "--inpaint-source", str(tmp_path / "old.wav"), "-o", str(tmp_path / "new.mp4")]
    assert main([str(EXAMPLE), *flags]) == 2
    assert "the sidecar of 'old.wav' is missing or does not record how Sketch composed it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["old.wav"]
