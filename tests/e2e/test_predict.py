"""From videos to music by a model that was trained on them: prepared with VideoLLaMA3's tags, trained, put to use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import ffmpeg, names
from tests.data.test_prepare import read
from tests.fixtures.tiny import encoders
from tests.fixtures.tiny import musicgen as tiny
from tests.taggers.test_videollama import SMALL
from tests.training.test_module import trainer
from v2m.checkpoints import V2M, lightning_ckpt
from v2m.cli import score
from v2m.cli.convert import main as convert
from v2m.cli.prepare import main as prepare
from v2m.cli.train import main
from v2m.core.protocols import MusicGenerator
from v2m.core.types import SamplingConfig, Tags
from v2m.data.module import ShardData, VideoDataModule
from v2m.data.schema import META, Manifest
from v2m.generators.in_memory import InMemoryGenerator
from v2m.generators.musicgen import MusicGen
from v2m.generators.vidmuse import VidMuse
from v2m.media import video
from v2m.models.lora import LoRAConfig
from v2m.training.checkpoints import list_checkpoints
from v2m.training.optim import OptimConfig
from v2m.training.predict import LitGenerate

ROOT = Path(__file__).parents[2]
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
SEED = ("--model.predict.seed", "3")


@dataclass(frozen=True)
class Made:
    """Configs of the tagger, a dataset, a training checkpoint, and what was exported from it."""

    tagger: Path
    model: Path
    shards: Path
    trained: Path
    exported: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, v2b_weights: Path, media: Path) -> Made:
    root = tmp_path_factory.mktemp("made")
    folder, given = encoders.write(root / "encoders"), SMALL | {"model": str(v2b_weights / "tagger")}
    tagger = {"tagger": {"class_path": "v2m.taggers.videollama.VideoLLaMA3", "init_args": given}}
    (root / "tagger.yaml").write_text(yaml.safe_dump(tagger))
    (root / "model.yaml").write_text(yaml.safe_dump({"model": tagger}))
    (root / "videos").mkdir()
    shutil.copy(media / "cuts.mp4", root / "videos/a.mp4")
    ffmpeg("-ss", "1", "-i", media / "cuts.mp4", "-vf", "hflip", "-c:a", "aac", root / "videos/b.mp4")
    named = {
        "vision-encoder": folder / "clip",
        "codec": folder / "encodec",
        "text-encoder": folder / "t5",
        "min-duration-s": 2,
        "num-long-term-frames": 4,
    }
    settings = [*(f"--{name}={value}" for name, value in named.items()), f"--config={root}/tagger.yaml"]
    shards = root / "shards"
    assert prepare([*settings, "--device=cpu", "--quiet", str(root / "videos"), str(shards)]) == 0
    sizes = ["--model.lm.dim", "32", "--model.lm.num_layers", "1", "--data.window", "1.5", "--data.batch_size", "4"]
    more = ["--data.train", str(shards), "--trainer.max_steps", "60", "--audio_samples.every_n_validations", "0"]
    root_dir = ["--trainer.default_root_dir", str(root / "run"), "--ema.decay", "0.9", "--trainer.logger", "false"]
    assert main(["fit", "--config", str(ROOT / "configs/train/tiny.yaml"), *sizes, *more, *root_dir, *QUIET]) == 0
    path = list_checkpoints(root / "run/checkpoints")[0]
    assert convert([str(path), str(root / "exported")]) == 0
    return Made(root / "tagger.yaml", root / "model.yaml", shards, path, root / "exported")


def predicting(made: Made, videos: Path, *more: str) -> list[str]:
    configs = ["--config", str(ROOT / "configs/train/small.yaml"), "--config", str(made.model)]
    given = ["--ckpt_path", str(made.trained), "--data.videos", str(videos), "--trainer.accelerator", "cpu"]
    root = ["--trainer.default_root_dir", str(made.trained.parents[1])]
    return ["predict", *configs, *given, *root, *QUIET, *more]


def record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def sound(path: Path) -> str:
    """The digest of the packets of its sound."""
    ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "md5", path.with_suffix(".md5"))
    return path.with_suffix(".md5").read_text()


def test_videollama3_tags_are_the_tags_in_the_shards(made: Made) -> None:
    assert Manifest.read(made.shards).tagger == "VideoLLaMA3"
    lines = {sample[META].prompt for sample in read(made.shards).values()}
    assert lines == {"calm, hopeful ambient and cinematic music with piano and harp, warm, airy, 72 bpm"}


def test_predict_equals_inference_with_the_exported_checkpoint(
    made: Made, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the averaged weights, without the precision of training, and without a file of the run being touched."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b/a.mp4", "c.mp4"):
        (clips / name).parent.mkdir(exist_ok=True)
        shutil.copy(media / "cuts.mp4", clips / name)
    (clips / "aa.webm").write_bytes(b"nothing")
    (clips / "c.mp4").write_bytes((clips / "c.mp4").read_bytes()[:900])
    before = {path: path.read_bytes() for path in made.trained.parents[1].rglob("*") if path.is_file()}
    command = predicting(made, clips, "--data.out", str(tmp_path / "out"), *SEED)
    assert main(command) == 7
    said = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in said[-5:-1]] == ["done", "failed", "done", "failed"]
    assert "aa.webm' is not a video" in said[-4]
    assert said[-1] == "2 done, 2 failed"
    assert names(tmp_path / "out") == ["a.v2m.json", "a.v2m.mp4", "b"]
    assert {path: path.read_bytes() for path in made.trained.parents[1].rglob("*") if path.is_file()} == before
    found = record(tmp_path / "out/a.v2m.json")
    assert found["recipe"] == made.trained.name
    assert found["settings"]["tagger"]["class_path"].endswith("VideoLLaMA3")
    assert found["tags"]["instruments"] == ["piano", "harp"]
    assert found["music"]["windows"] == [[0.0, 1.5], [0.9, 2.4], [1.8, 3.3], [2.5, 4.0]]
    assert len(found["weights"]) == 4

    other = Path(shutil.copy(media / "cuts.mp4", tmp_path / "other.mp4"))
    windows = ["--generator.window", "1.5", "--generator.stride", "0.9", "--generator.device", "cpu"]
    recipe = ["--recipe", "vidmuse", "--generator.model", str(made.exported), "--config", str(made.tagger)]
    assert score.main([str(other), *recipe, *windows, "--seed", "3", "--quiet"]) == 0
    assert sound(tmp_path / "out/a.v2m.mp4") == sound(tmp_path / "other.v2m.mp4") == sound(tmp_path / "out/b/a.v2m.mp4")

    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.mp4")}
    assert main(command) == 7
    assert capsys.readouterr().out.splitlines()[-1] == "2 unchanged, 2 failed"
    assert {path: path.stat().st_mtime_ns for path in done} == done
    (clips / "c.mp4").unlink()
    (clips / "aa.webm").unlink()
    (tmp_path / "out/b/a.v2m.mp4").write_bytes(b"a person's")
    assert main(command) == 7
    assert (
        "a.v2m.mp4 exists already: give --model.predict.overwrite true or another --data.out" in capsys.readouterr().out
    )
    (tmp_path / "out/b/a.v2m.mp4").unlink()
    (tmp_path / "out/b/a.v2m.json").unlink()
    assert main([*command, "--model.predict.seed", "4"]) == 0  # its own outputs, of other settings, are made anew
    assert capsys.readouterr().out.splitlines()[-1] == "2 done"


def test_one_checkpoint_is_conditioned_on_text_video_or_both(made: Made, media: Path) -> None:
    """By words alone it is the recipe musicgen, whatever the video shows; by pictures alone, whatever the tags say."""
    how: Any = {"device": "cpu", "precision": "fp32", "window": 1.0, "stride": 0.5, "keep_loaded": True}
    clip, name = video.open(media / "cuts.mp4"), str(made.exported)
    clips, tags = (clip.crop(0.0, 1.2), clip.crop(2.7, 3.9)), (Tags(genres="jazz"), Tags(genres="folk"))

    def played(generator: MusicGenerator) -> list[bytes]:
        return [generator.generate(each, said, 3).audio.samples.tobytes() for each in clips for said in tags]

    both, words, pictures = (
        played(VidMuse(model=name, sampling=sampling, **how))
        for sampling in (
            SamplingConfig(),
            SamplingConfig(video_cfg_scale=0.0),
            SamplingConfig(cfg_scale=0.0, video_cfg_scale=3.0),
        )
    )
    assert len(set(both)) == 4
    assert words[:2] == words[2:]
    assert words[0] != words[1]
    assert pictures[::2] == pictures[1::2]
    assert pictures[0] != pictures[2]
    assert len({both[0], words[0], pictures[0]}) == 3
    assert played(MusicGen(model=name, **how)) == words


def test_model_without_conditioner_is_prompted_by_text_untrained(clip: Path, tmp_path: Path) -> None:
    start = tiny.write_transformers(tmp_path / "musicgen")
    given = ["--model.init_from", str(start), "--data.videos", str(clip), "--data.out", str(tmp_path / "out")]
    windows = ["--model.predict.window", "2", "--model.predict.stride", "1", "--trainer.accelerator", "cpu"]
    assert main(["predict", *given, *windows, *QUIET]) == 0
    recipe = ["--recipe", "musicgen", "--generator.model", str(start), "--generator.device", "cpu"]
    assert score.main([str(clip), *recipe, "--generator.window", "2", "--generator.stride", "1", "--quiet"]) == 0
    assert sound(tmp_path / "out/cuts.v2m.mp4") == sound(clip.with_name("cuts.v2m.mp4"))
    assert record(tmp_path / "out/cuts.v2m.json")["settings"]["weights_sha256"] is not None


def test_predict_leaves_the_model_unchanged(made: Made, clip: Path) -> None:
    """The averaged weights, bit for bit, which can be measured and trained on."""
    module, averaged = LitGenerate(), V2M.from_pretrained(str(made.exported)).state_dict()
    run = trainer()
    [[row]] = run.predict(module, VideoDataModule(clip), ckpt_path=made.trained, weights_only=True) or []
    assert (row.status, row.detail) == ("done", "cuts.v2m.mp4")
    own = module.music_model.state_dict()
    assert own.keys() == averaged.keys()
    assert all(torch.equal(value, averaged[name]) for name, value in own.items())
    held = torch.load(made.trained, weights_only=True)["state_dict"]
    assert any(not torch.equal(value, held[f"model.{name}"]) for name, value in own.items())
    [figures] = run.validate(
        module, ShardData(made.shards, made.shards, batch_size=2, window=1.5, num_workers=0), verbose=False
    )
    assert figures["validation/loss"] > 0
    trainer(max_steps=1).fit(module, ShardData(made.shards, batch_size=2, window=1.5, num_workers=0))


def test_lora_in_memory_equals_merged_weights(made: Made, media: Path, tmp_path: Path) -> None:
    learning = OptimConfig(lr=0.05, warmup_steps=0)
    module, run = (
        LitGenerate(str(made.exported), lora=LoRAConfig(rank=4), window=1.5, optim=learning),
        trainer(max_steps=5),
    )
    run.fit(module, ShardData(made.shards, batch_size=2, window=1.5, num_workers=0))
    run.save_checkpoint(tmp_path / "made.ckpt")
    clip = video.open(media / "cuts.mp4").crop(0.0, 1.2)
    plain, start = (
        lightning_ckpt.load_training_checkpoint(tmp_path / "made.ckpt"),
        V2M.from_pretrained(str(made.exported)),
    )
    tags, device = Tags(genres="jazz"), torch.device("cpu")
    own, merged, before = (
        InMemoryGenerator(each, "a model", device, precision="fp32").generate(clip, tags, 3).audio.samples
        for each in (module.music_model.eval(), plain, start)
    )
    assert np.array_equal(own, merged)
    assert not np.array_equal(own, before)


def test_errors_that_concern_every_video_are_one_line(
    made: Made, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, code, told in (
        ("--model.predict.window 40", 2, "window 40 s is longer than the 1.5 s that the model was trained on"),
        ("--model.predict.stride 1.5", 2, "stride 1.5 s must lie between 0.5 and 1"),
        ("--model.tagger.init_args.model no/such/folder/at/all", 2, "there is no folder 'no/such/folder/at/all'"),
    ):
        assert main(predicting(made, clip, *flags.split())) == code
        [said] = [row for row in capsys.readouterr().err.splitlines() if row.startswith("train.py: ")]
        assert told in said
    assert names(clip.parent) == ["cuts.mp4"]


@pytest.mark.slow
def test_two_ranks_predict_each_video_once(made: Made, media: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(media / "cuts.mp4", clips / name)
    (clips / "d.mp4").write_bytes(b"nothing")
    (clips / "e.mp4").write_bytes(b"nothing")
    ranks = ["--trainer.strategy", "ddp", "--trainer.devices", "2", *SEED, "--data.out", str(tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, "train.py", *predicting(made, clips, *ranks)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr[-3000:]
    rows = done.stdout.splitlines()[-6:]
    assert [row.split()[:2] for row in rows[:5]] == [
        [f"{letter}.mp4", "done" if letter < "d" else "failed"] for letter in "abcde"
    ]
    assert rows[5] == "3 done, 2 failed"
    assert len({sound(tmp_path / f"two/{letter}.v2m.mp4") for letter in "abc"}) == 1
