"""Tags for a corpus: `v2m tag`, by VideoLLaMA3 and by the picture, on one rank and on two."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import names
from tests.taggers.test_videollama import SMALL
from v2m.cli.tag import TagCLI, main
from v2m.core import errors
from v2m.core.types import Tags
from v2m.data.sources import discover_videos, read_tags
from v2m.training.predict import LitTagger
from v2m.training.video_tagger import TAG_FIELDS

ROOT = Path(__file__).parents[2]
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def corpus(media: Path, tmp_path: Path) -> Path:
    """Five videos, of which two lie deeper and one is none."""
    folder = tmp_path / "videos"
    for name in ("a.mp4", "b.mp4", "deep/a.mp4", "deep/c.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(media / "cuts.mp4", folder / name)
    (folder / "d.mp4").write_bytes(b"nothing")
    return folder


@pytest.fixture
def config(v2b_weights: Path, tmp_path: Path) -> list[str]:
    given = SMALL | {"model": str(v2b_weights / "tagger"), "device": "auto"}
    tagger = {"class_path": "v2m.taggers.videollama.VideoLLaMA3", "init_args": given}
    (tmp_path / "tagger.yaml").write_text(yaml.safe_dump({"model": {"tagger": tagger}}))
    return ["--config", str(tmp_path / "tagger.yaml")]


def tags(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in folder.rglob("*.tags.json")}


def test_every_video_gets_the_tags_that_prepare_reads(
    corpus: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*config, "--data.videos", str(corpus), *CPU]) == errors.BATCH
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "4 done, 1 failed"
    assert [row.split()[:2] for row in said[-6:-1]] == [
        [f"{name}.mp4", "failed" if name == "d" else "done"] for name in "abdac"
    ]
    found = tags(corpus)
    assert sorted(found) == [f"{name}.tags.json" for name in ("a", "b", "deep/a", "deep/c")]
    for source in discover_videos([corpus]):
        if source.video.name != "d.mp4":
            assert source.tags is not None
            assert Tags(**read_tags(source.tags)).instruments == ("piano", "harp")
    assert not list(corpus.rglob(".*"))


def test_existing_sidecars_are_kept_and_user_tags_win(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "a.tags.json").write_text('{"genres": ["polka"], "tempo": 133}')
    (corpus / "b.tags.json").write_text('{"genres": 5, "color": "red"}')
    command = ["--data.videos", str(corpus), *CPU]
    assert main(command) == errors.BATCH
    assert "b.tags.json holds no tags" in capsys.readouterr().out
    found = tags(corpus)
    assert (found["a.tags.json"]["genres"], found["a.tags.json"]["tempo"]) == (["polka"], 133)
    assert found["a.tags.json"]["moods"]
    assert found["a.tags.json"].keys() == found["deep/c.tags.json"].keys() == TAG_FIELDS
    (corpus / "b.tags.json").unlink()
    (corpus / "d.mp4").unlink()
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.json")}
    assert main(command) == errors.OK
    assert capsys.readouterr().out.splitlines()[-1] == "3 unchanged, 1 done"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (corpus / "a.tags.json").write_text(json.dumps(found["a.tags.json"] | {"genres": ["noise"]}))
    assert main([*command, "--model.overwrite", "true"]) == errors.OK
    assert tags(corpus)["a.tags.json"]["genres"] == tags(corpus)["b.tags.json"]["genres"] != ["noise"]


def test_separate_output_folder_mirrors_the_video_folder(corpus: Path, tmp_path: Path) -> None:
    (corpus / "b.tags.json").write_text('{"genres": ["polka"]}')
    assert main(["--data.videos", str(corpus), "--data.out", str(tmp_path / "out"), *CPU]) == errors.BATCH
    found = tags(tmp_path / "out")
    assert sorted(found) == [f"{name}.tags.json" for name in ("a", "b", "deep/a", "deep/c")]
    assert found["b.tags.json"]["genres"] == ["polka"]
    assert sorted(tags(corpus)) == ["b.tags.json"]


def test_shipped_config_equals_the_recipe_and_opens_with_its_command() -> None:
    path = ROOT / "configs/data/tag.yaml"
    held, recipe = (yaml.safe_load(each.read_text()) for each in (path, ROOT / "configs/infer/v2b.yaml"))
    assert held["model"]["tagger"] == recipe["tagger"]
    assert path.read_text().startswith(f"# uv run v2m tag --config configs/data/{path.name} --data.videos ")


def test_errors_that_concern_the_whole_run_are_one_line(
    corpus: Path, config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    gone = [*config, "--model.tagger.init_args.model", "./gone", "--data.videos", str(corpus)]
    for given, code, told in (
        (["--data.videos", str(tmp_path / "none")], errors.USAGE, "no such file or folder"),
        (["--data.videos", str(tmp_path / "empty")], errors.INPUT_REFUSED, "no videos"),
        (["--data.videos", str(corpus), "--data.out", str(corpus / "a.mp4")], errors.USAGE, "names a file"),
        (gone, errors.USAGE, "there is no folder './gone'"),
    ):
        assert main([*given, *CPU]) == code
        [line] = [row for row in capsys.readouterr().err.splitlines() if row.startswith("v2m tag: ")]
        assert told in line


def test_tagger_runs_on_the_device_of_its_rank_outside_the_module(
    corpus: Path, config: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[LitTagger] = []
    usual = LitTagger.on_predict_end

    def note(self: LitTagger) -> None:
        modules.append(self)

    monkeypatch.setattr(LitTagger, "on_predict_end", note)
    TagCLI([*config, "--data.videos", str(corpus / "a.mp4"), *CPU])
    [module] = modules
    tagger: Any = module.tagger
    assert tagger.device == "cpu"
    assert tagger._lazy_model.loaded
    assert not list(module.parameters())
    assert not module.state_dict()
    usual(module)
    assert not tagger._lazy_model.loaded


def test_interrupted_run_is_resumed_by_the_same_command(corpus: Path, media: Path) -> None:
    for number in range(4):
        shutil.copy(media / "cuts.mp4", corpus / f"more{number:02d}.mp4")
    (corpus / "d.mp4").unlink()
    command = [sys.executable, "-m", "v2m", "tag", "--data.videos", str(corpus), *CPU]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 300
    while len(tags_there(corpus)) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == errors.SIGTERM, said
    there = {path: path.stat().st_mtime_ns for path in tags_there(corpus)}
    assert 2 <= len(there) < 8
    assert all(json.loads(path.read_text()).keys() == TAG_FIELDS for path in there)
    assert not [name for name in names(corpus) if name.startswith(".")]
    assert main(command[4:]) == errors.OK
    assert len(tags_there(corpus)) == 8
    assert {path: path.stat().st_mtime_ns for path in there} == there


def tags_there(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.tags.json") if not path.name.startswith("."))


@pytest.mark.slow
def test_two_ranks_tag_each_video_once(corpus: Path, config: list[str]) -> None:
    """Five videos, which are odd; one of them fails, and its rank ends well none the less."""
    ranks = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    command = [sys.executable, "-m", "v2m", "tag", *config, "--data.videos", str(corpus), *CPU, *ranks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == errors.BATCH, done.stderr[-3000:]
    rows = done.stdout.splitlines()
    assert rows[-1] == "4 done, 1 failed"
    assert [row.split()[:2] for row in rows[-6:-1]] == [
        [f"{name}.mp4", "failed" if name == "d" else "done"] for name in "abdac"
    ]
    assert "MEMBER: 2/2" in done.stderr
    found = tags(corpus)
    assert len(found) == 4
    assert all(each["instruments"] == ["piano", "harp"] for each in found.values())
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.stdout.splitlines()[-1] == "4 unchanged, 1 failed"
