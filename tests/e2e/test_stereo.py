"""Stereo from end to end by the real commands: prepared, learned, exported, played."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ffmpeg
from tests.e2e.test_musicgen import heard
from tests.e2e.test_train import words
from tests.fixtures.tiny import encoders
from v2m.checkpoints import V2M
from v2m.cli.convert import main as convert
from v2m.cli.prepare import main as prepare
from v2m.cli.score import main as infer
from v2m.cli.train import main as train
from v2m.core.errors import USAGE


@pytest.fixture(scope="module")
def prepared(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with one tone left and another right."""
    root = tmp_path_factory.mktemp("stereo")
    (root / "videos").mkdir()
    tones = "sine=330:d=4,volume=3[l];sine=555:d=4,volume=3[r];[l][r]join=inputs=2:channel_layout=stereo[a]"
    clip = ("-i", media / "cuts.mp4", "-filter_complex", tones, "-map", "0:v", "-map", "[a]", "-c:v", "copy")
    ffmpeg(*clip, "-c:a", "aac", root / "videos" / "a.mp4")
    encoders.write(root)
    named = [
        f"--{kind}={root / name}"
        for kind, name in (("vision-encoder", "clip"), ("codec", "encodec"), ("text-encoder", "t5"))
    ]
    given = [
        "--stereo=true",
        "--min-duration-s=2",
        "--num-long-term-frames=4",
        "--processes=1",
        "--quiet",
        "--device=cpu",
    ]
    assert prepare([*named, *given, str(root / "videos"), str(root / "shards")]) == 0
    return root / "shards"


def test_stereo_model_is_trained_exported_and_played(
    prepared: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's sizes come from the shards; its delays go by channel pairs; left and right differ."""
    run = words(prepared, tmp_path / "run", "--trainer.max_steps", "60", "--data.validation", str(prepared))
    run += ["--model.optim.lr", "3e-3", "--model.text_dropout", "0", "--model.video_dropout", "0"]
    losses = []
    for step in ("2", "60"):
        assert train([*run, "--trainer.max_steps", step]) == 0
        newest = str(max((tmp_path / "run/checkpoints").glob("*.ckpt")))
        capsys.readouterr()
        assert train(["validate", *run[1:], "--ckpt_path", newest]) == 0
        said = capsys.readouterr().out
        losses.append(float(next(line for line in said.splitlines() if "validation/loss " in line).split()[-2]))
    assert losses[1] < 0.6 * losses[0]
    assert convert([newest, str(tmp_path / "made")]) == 0
    lm = V2M.from_pretrained(str(tmp_path / "made")).config.lm
    assert (lm.channels, lm.num_codebooks, lm.delay_pattern) == (2, 8, (0, 0, 1, 1, 2, 2, 3, 3))
    windows = ["--generator.window", "1", "--generator.stride", "0.5", "--quiet", "--end", "1.5"]
    assert infer([str(clip), "--recipe", "vidmuse", "--generator.model", str(tmp_path / "made"), *windows]) == 0
    music, _ = heard(clip.with_name("cuts.v2m.mp4"))
    assert not np.allclose(music[0], music[1], atol=1e-3)


def test_mono_and_stereo_checkpoints_are_not_mixed(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start that writes mono; delays for four codebooks."""
    from v2m.models.lm import LMConfig
    from v2m.models.music_model import MusicConfig

    torch.manual_seed(0)
    for codebooks, said in ((8, "2 audio channels where the model has 1"), (4, "8 codebooks where the model has 4")):
        lm = LMConfig(dim=32, num_layers=1, num_heads=4, num_codebooks=codebooks, codebook_size=64)
        shutil.rmtree(tmp_path / "mono", ignore_errors=True)
        V2M(MusicConfig(lm, 16, segment_duration=1.0)).save_pretrained(tmp_path / "mono")
        start = ["--model.init_from", str(tmp_path / "mono"), "--model.lm", "null", "--model.conditioner", "null"]
        assert train(words(prepared, tmp_path / "run", *start)) == USAGE
        assert said in capsys.readouterr().err
    assert train(words(prepared, tmp_path / "run", "--model.lm.delays", "[0,1,2,3]")) == USAGE
    assert "delays [0, 1, 2, 3] must be 8 numbers" in capsys.readouterr().err
