"""Measures with weights: real files, models in their published formats, one table; also of a training's `test`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import names
from tests.fixtures.tiny import embedders as tiny_embedders
from tests.fixtures.tiny.training import wait_for_run_end, write_dataset
from v2m.cli import train
from v2m.cli.evaluate import main
from v2m.core import errors
from v2m.core.types import Audio
from v2m.media import audio, video
from v2m.mixing import mixer
from v2m.training.checkpoints import list_checkpoints

ROOT = Path(__file__).parents[2]
TAGS = {"genres": ["ambient"], "instruments": ["piano"], "moods": ["calm"], "tempo": 96}
CLIPS = ("one", "two", "three")
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedders")
    for name, make in (("clap", tiny_embedders.clap), ("ast", tiny_embedders.ast), ("pe-av", tiny_embedders.pe_av)):
        make(folder / name)
    return folder


@pytest.fixture(scope="module")
def corpus(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Systems `a` and `b` of three clips, one more in `b`; the truth is the sound of `a`, so that `a` is at it."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("a", "b", "truth"):
        (folder / name).mkdir()
    clip = video.open(media / "cuts.mp4")
    for number, name in enumerate((*CLIPS, "four")):
        times = np.arange(4 * 48_000) / 48_000
        for system, tone in (("a", 220.0), ("b", 3000.0)):
            rng = np.random.default_rng(number)
            sound = 0.2 * np.sin(2 * np.pi * tone * (1 + number) * times) + 0.05 * rng.normal(size=len(times))
            music, out = Audio(np.array([sound, sound], np.float32), 48_000), folder / system / f"{name}.v2m.mp4"
            if name == "four" and system == "a":
                continue
            mixer.mix(clip, music, out)
            out.with_suffix(".json").write_text(json.dumps({"tags": TAGS}))
            if system == "a" and number:
                shutil.copy(out, folder / "truth" / f"{name}.mp4")
            elif system == "a":
                audio.save(audio.load(out, 48_000, 4.0), folder / "truth" / f"{name}.wav")
    return folder


def asked(corpus: Path, weights: Path, *more: str) -> list[str]:
    models = [f"{name}={weights / name}" for name in ("clap", "ast", "pe-av")]
    folders = ["--compare", str(corpus / "a"), str(corpus / "b"), "--ground-truth", str(corpus / "truth")]
    return [*folders, "--embedding", *models, *more]


def test_systems_are_compared_with_the_ground_truth_on_the_same_clips(
    corpus: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    files = ["--csv", "clips.csv", "--summary", "summary.csv", "--wandb", "measured"]
    assert main(asked(corpus, weights, *files)) == errors.OK
    printed = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    short = {str(corpus / name): name for name in ("a", "b")}
    by = {(row["measure"], row["embedding"], short.get(row["system"], row["system"])): row for row in rows}
    for name in ("clap", "ast", "pe-av"):
        assert float(by["fad", name, "a"]["value"]) < 0.02 * float(by["fad", name, "b"]["value"])
        assert by["fad", name, "b"]["n"] == "3"
        assert f"* fad@{name} is too high: " in printed
    assert float(by["kl", "ast", "a"]["value"]) < 0.02 * float(by["kl", "ast", "b"]["value"])
    assert by["kl", "ast", "b"]["n"] == "3"
    for measure, name in (("clap_score", "clap"), ("av_similarity", "pe-av")):
        at, true = (float(by[measure, name, system]["value"]) for system in ("a", "ground truth"))
        assert abs(at - true) < 0.2 * abs(float(by[measure, name, "b"]["value"]) - true)
    assert ("lufs", "", "ground truth") in by  # the truth is measured without weights, too
    assert not [row for row in rows if row["measure"] in {"density", "coverage"}]  # of three clips
    line = next(line for line in printed.splitlines() if line.startswith("| clap_score"))
    assert len(line.split("|")) == len(printed.splitlines()[0].split("|"))
    assert "* clap_score: " in printed
    assert "* coverage: " not in printed
    clips = list(csv.DictReader((tmp_path / "clips.csv").read_text().splitlines()))
    assert [row["video"] for row in clips] == sorted(CLIPS) * 5
    [run] = (tmp_path / "wandb").glob("offline-run-*")
    assert len(list(run.glob("files/media/table/metrics/*.table.json"))) == 2
    history = [item for record in wait_for_run_end(run) for item in record.history.item]
    keys = {item.key or "/".join(item.nested_key) for item in history}
    assert f"metrics/fad@clap/{corpus / 'b'}" in keys


def test_table_of_one_system_has_a_column_per_clip_without_ground_truth(
    corpus: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(corpus / "a"), "--embedding", f"clap={weights / 'clap'}"]) == errors.OK
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["measure", "embedding", *sorted(CLIPS), "mean [95 %]", "shuffled", "n"]
    score = next(line for line in lines if line and line[0] == "clap_score")
    assert score[1] == "clap"
    assert float(score[5].split()[0]) == pytest.approx(np.mean([float(each) for each in score[2:5]]), abs=2e-3)
    assert score[-1] == "3"
    assert not [line for line in lines if line and line[0] == "fad"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["b", "--ground-truth", "truth"],
            errors.USAGE,
            "'truth' lacks the true music of four: put files",
        ),
        (["a", "--ground-truth", "gone"], errors.USAGE, "'gone' is no folder: --ground-truth takes one"),
        (["a", "--ground-truth", "twice"], errors.USAGE, "'twice' has more than one file for one"),
        (["a", "--embedding", "clap=owner/name"], errors.ENVIRONMENT, "weights owner/name cannot be fetched"),
        (["a", "--embedding", "clapp"], errors.USAGE, "give clap, ast, pe-av, musicnn, vggish, imagebind"),
        (["a", "--summary", "a/one.v2m.json"], errors.USAGE, "exists already"),
        (["a", "--ground-truth", "broken"], errors.USAGE, "cannot be read as sound"),
    ],
)
def test_invalid_requests_are_one_line(  # noqa: PLR0917 - a row, and where it is tried
    words: list[str],
    code: int,
    said: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("a", "b", "truth"):
        shutil.copytree(corpus / name, tmp_path / name)
    for name in ("twice", "broken"):
        shutil.copytree(corpus / "truth", tmp_path / name)
    shutil.copy(corpus / "a/one.v2m.mp4", tmp_path / "twice/one.mp4")
    (tmp_path / "broken/one.wav").write_bytes(b"no sound at all")
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("v2m evaluate: ")
    assert said in last


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Shards with what they name, and the words with which a model that has learned from them is tested."""
    root = tmp_path_factory.mktemp("run")
    shards = write_dataset(root)
    sizes = ["--model.lm.dim", "32", "--model.lm.num_layers", "1", "--data.window", "1", "--data.batch_size", "2"]
    given = ["--data.train", str(shards), "--data.test", str(shards), "--trainer.max_steps", "4"]
    home = ["--trainer.default_root_dir", str(root / "run")]
    words = ["--config", str(ROOT / "configs/train/tiny.yaml"), *sizes, *given, *home, *QUIET]
    assert train.main(["fit", *words, "--trainer.logger", "false", "--checkpoints.every_n_train_steps", "4"]) == 0
    [path] = list_checkpoints(root / "run/checkpoints")
    return root, ["test", *words, "--ckpt_path", str(path)]


def figures(path: Path) -> dict[tuple[str, str], Any]:
    return {(row["measure"], row["system"]): row for row in csv.DictReader(path.read_text().splitlines())}


def test_trainer_test_gives_the_same_metrics_as_the_command(
    run: tuple[Path, list[str]], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = run
    models = [f"clap={weights / 'clap'}", f"ast={weights / 'ast'}"]
    asked = ["--eval.num_clips", "2", "--eval.embedding", json.dumps(models), "--eval.seed", "3"]
    asked += ["--trainer.default_root_dir", str(tmp_path / "one")]
    logged = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", str(tmp_path)]
    assert train.main([*words, *asked, *logged]) == 0
    printed = capsys.readouterr().out
    assert "test/loss" in printed
    folder = tmp_path / "one/test"
    assert (folder / "table.md").read_text().splitlines()[0] in printed
    found = figures(folder / "summary.csv")
    assert found["seconds", ""]["n"] == "2"
    assert "lufs" in {measure for measure, system in found if system == "ground truth"}
    assert float(found["fad", ""]["value"]) > 0
    assert float(found["kl", ""]["value"]) > 0
    assert ("kl", "shuffled") in found
    pieces = [name for name in names(folder) if name.endswith(".flac")]
    assert len(pieces) == 2
    [metrics] = tmp_path.rglob("metrics.csv")
    assert any("test/kl@ast" in line for line in metrics.read_text().splitlines())
    again = [*asked[:-1], str(tmp_path / "two")]
    assert train.main([*words, *again, "--trainer.logger", "false"]) == 0
    assert (tmp_path / "two/test/clips.csv").read_text() == (folder / "clips.csv").read_text()


def test_trainer_test_of_videos_uses_tags_frames_and_original_audio(
    run: tuple[Path, list[str]], weights: Path, media: Path, tmp_path: Path
) -> None:
    _, words = run
    models = [f"{name}={weights / name}" for name in ("clap", "pe-av")]
    asked = ["--eval.num_clips", "1", "--eval.videos", str(media), "--eval.max_seconds", "2"]
    asked += ["--eval.embedding", json.dumps(models), "--trainer.default_root_dir", str(tmp_path)]
    assert train.main([*words, *asked, "--trainer.logger", "false"]) == 0
    found = figures(tmp_path / "test/summary.csv")
    for measure in ("clap_score", "av_similarity", "cuts"):
        assert found[measure, ""]["n"] == found[measure, "ground truth"]["n"] == "1"
    assert float(found["seconds", ""]["value"]) == pytest.approx(2)
    assert (tmp_path / "test/cuts.mp4").is_file()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--eval.embedding", '["clap"]'], "embedding needs clips to measure: give --eval.num_clips"),
        (["--eval.num_clips", "-1"], "num_clips -1 must be 0 or more"),
        (["--eval.num_clips", "1", "--eval.embedding", '["nothing"]'], "give clap, ast, pe-av"),
        (["--eval.num_clips", "1", "--eval.videos", "gone"], "gone"),
    ],
)
def test_invalid_trainer_test_is_refused_before_any_work(
    run: tuple[Path, list[str]], asked: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*run[1], *asked, "--trainer.logger", "false"]) != 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train.py: ")
    assert said in last
