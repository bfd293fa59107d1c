"""A run is listened to without its noticing."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import soundfile
import torch

from tests.fixtures.tiny import shards
from tests.fixtures.tiny.training import write_dataset
from tests.training.test_checkpoints import LM, SEES, alike, state
from v2m.core.errors import InvalidInputError, UsageError
from v2m.data.module import ShardData
from v2m.media import video as files
from v2m.models.inference.decoder import Decoder
from v2m.training.audio_samples import LogAudioSamples
from v2m.training.checkpoints import CheckpointCallback
from v2m.training.ema import EMACallback
from v2m.training.eval_clips import GenerateOptions
from v2m.training.module import LitMusicLM
from v2m.training.optim import OptimConfig

END = 6  # steps, of 9 batches: a pass has 3, and its last is a step by itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("prepared"))


class Drawing(LogAudioSamples):
    """Draws from all the random numbers that there are while it listens."""

    def _generate(self, trainer: Any, module: Any) -> None:
        super()._generate(trainer, module)
        _ = torch.rand(3), np.random.rand(3), random.random()


def run(
    folder: Path, root: Path, *more: lightning.Callback, validate: bool = True, max_steps: int = END
) -> lightning.Trainer:
    torch.manual_seed(1)
    trainer = lightning.Trainer(
        default_root_dir=root,
        max_steps=max_steps,
        callbacks=[EMACallback(0.9), CheckpointCallback(END), *more],
        val_check_interval=4,
        check_val_every_n_epoch=None,
        accumulate_grad_batches=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        devices=1,
        num_sanity_val_steps=0,
    )
    model = LitMusicLM(lm=LM, conditioner=SEES, optim=OptimConfig(lr=3e-3, lm_lr_scale=0.5, warmup_steps=3), window=1.0)
    trainer.fit(model, ShardData(folder, folder if validate else None, batch_size=2, window=1.0, num_workers=0))
    return trainer


def figures(root: Path) -> dict[int, Any]:
    found = [json.loads(path.read_text()) for path in sorted(root.glob("audio_samples/step*/metrics.json"))]
    return {each["step"]: each for each in found}


def test_samples_leave_training_bit_identical_and_use_ema_weights(folder: Path, tmp_path: Path) -> None:
    """Amid the batches of a step, too, as behind the fourth. The last listening is that of the end, whose averaged
    weights are those of the checkpoint."""
    run(folder, tmp_path / "without")
    run(folder, tmp_path / "with", Drawing(every_n_validations=1, num_clips=1, seed=7))
    one, two = state(tmp_path / "without", END), state(tmp_path / "with", END)
    for name in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "rng_state", "v2m"):
        assert alike(one[name], two[name]), name
    assert list(figures(tmp_path / "with")) == [2, 5, END]
    heard, rate = soundfile.read(tmp_path / f"with/audio_samples/step{END:08d}/sample0000.flac")
    assert (len(heard), rate) == (32000, 32000)
    assert heard.std() > 1e-3

    trainer = run(folder, tmp_path / "other", max_steps=1)
    model: Any = trainer.lightning_module
    again = {}
    for name in ("ema", "state_dict"):
        model.load_state_dict(two[name])
        own = LogAudioSamples(every_n_validations=1, num_clips=1, seed=7)
        model.eval()
        own._clips = own._load_clips(trainer, model)
        how = GenerateOptions(Decoder(model.music_model.lm), own.sampling, own.seed, lambda fraction: None)
        again[name] = next(iter(own._clips.values())).generate(model.music_model, how).audio.samples[0]
    assert np.abs(again["ema"] - heard).max() < 1e-4  # FLAC has 24 bits
    assert np.abs(again["state_dict"] - heard).max() > 1e-2


def test_video_clips_get_preview_with_music(folder: Path, tmp_path: Path, media: Path) -> None:
    """At the end alone, for there is no validation."""
    run(
        folder,
        tmp_path,
        LogAudioSamples(every_n_validations=1, num_clips=3, videos=media, max_seconds=2.5),
        validate=False,
    )
    place = tmp_path / f"audio_samples/step{END:08d}"
    assert sorted(path.name for path in place.iterdir()) == ["cuts.flac", "cuts.mp4", "cuts.png", "metrics.json"]
    film = files.open(place / "cuts.mp4")
    assert (film.width, film.height) == (160, 90)
    assert film.duration == pytest.approx(2.5, abs=0.05)
    assert [stream.kind for stream in film.streams] == ["video", "audio"]
    held = figures(tmp_path)[END]["clips"]["cuts"]
    assert {"accents", "lufs"} <= held.keys()  # noise of an untrained model need not have a beat
    assert (place / "cuts.png").read_bytes()[1:4] == b"PNG"


class Failing(LogAudioSamples):
    def __init__(self, error: BaseException, **given: Any) -> None:
        super().__init__(every_n_validations=1, num_clips=1, **given)
        self.error = error

    def _generate(self, trainer: Any, module: Any) -> None:
        raise self.error


def test_failing_generation_is_a_warning(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "v2m"):
        trainer = run(folder, tmp_path, Failing(torch.OutOfMemoryError("CUDA out of memory")))
    assert trainer.global_step == END
    assert "no audio samples of step 2, training goes on: CUDA out of memory" in caplog.text


class Asking(LogAudioSamples):
    """A signal comes while it listens."""

    def _generate(self, trainer: Any, module: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        super()._generate(trainer, module)


def test_signal_ends_generation(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "v2m"), pytest.raises(SystemExit) as caught:
        run(folder, tmp_path, Asking(every_n_validations=1, num_clips=1))
    assert caught.value.code == 143
    assert "the audio samples of step 2 are left out" in caplog.text
    assert not figures(tmp_path)
    assert state(tmp_path, 3)["global_step"] == 3


def test_keyboard_interrupt_is_not_swallowed(folder: Path, tmp_path: Path) -> None:
    """Lightning ends the run as it does on any."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(folder, tmp_path, Failing(KeyboardInterrupt()))


@pytest.mark.parametrize("lacking", ["codec", "film"])
def test_missing_codec_or_video_is_one_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, lacking: str
) -> None:
    given: dict[str, Any] = {"videos": tmp_path / "nothere.mp4"}
    told = "nothere.mp4' is not a video"
    (tmp_path / "nothere.mp4").write_text("no film")
    if lacking == "codec":
        told, given = "there is no folder 'tiny'", {}
        folder = shards.write(tmp_path / "in", (2,), seconds=1.0)
    with caplog.at_level(logging.WARNING, "v2m"):
        trainer = run(folder, tmp_path / "run", LogAudioSamples(every_n_validations=1, **given))
    assert trainer.global_step == END
    said = [each.getMessage() for each in caplog.records if "there will be no audio samples" in each.getMessage()]
    assert len(said) == 1
    assert told in said[0]
    assert not list(tmp_path.glob("run/audio_samples/step*"))


def test_missing_videos_are_refused_before_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.mp4': no such file or folder"):
        run(folder, tmp_path, LogAudioSamples(every_n_validations=1, videos=[Path("none.mp4")]))
    with pytest.raises(InvalidInputError, match="no videos"):
        run(folder, tmp_path, LogAudioSamples(every_n_validations=1, videos=tmp_path))


def test_invalid_settings_are_reported_together() -> None:
    with pytest.raises(
        UsageError, match=r"every_n_validations -1 must be 0 or more; num_clips 0 must be 1 or more; max_seconds 0"
    ):
        LogAudioSamples(every_n_validations=-1, num_clips=0, max_seconds=0.0)
