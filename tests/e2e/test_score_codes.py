"""A language model that writes scores: synthetic clips, shards of score codes, training, export, music with MIDI."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
import torch

from tests.fixtures.tiny import encoders
from v2m.checkpoints import V2M, Component
from v2m.checkpoints.codec import load_codec
from v2m.cli.convert import main as convert
from v2m.cli.prepare import main as prepare
from v2m.cli.score import main as score
from v2m.cli.train import main as train
from v2m.core.errors import UsageError
from v2m.data.schema import Manifest
from v2m.data.synthetic import make_clips
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig
from v2m.pretrained.codecs.score import MODEL_TYPE, ScoreCodec, ScoreCodecConfig
from v2m.sketch.notation.decoding import decode_score
from v2m.sketch.notation.midi_file import read_midi

ROOT = Path(__file__).parents[2]
SECONDS = 5.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "clips"
    make_clips(folder, 2, SECONDS, 0, 1)
    return folder


@pytest.fixture(scope="module")
def shards(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("score")
    made = encoders.write(root / "encoders")
    names = [f"--vision-encoder={made / 'clip'}", f"--text-encoder={made / 't5'}", f"--codec={MODEL_TYPE}"]
    sizes = ["--min-duration-s=2", "--num-long-term-frames=4", "--max-segment-s=3", "--processes=1", "--device=cpu"]
    assert prepare([*names, *sizes, "--quiet", str(clips), str(root / "shards")]) == 0
    return root / "shards"


def test_shards_hold_the_codes_of_the_scores(clips: Path, shards: Path) -> None:
    """Both segments of a clip together are the codes of its MIDI file, which is not read from the sound."""
    manifest = Manifest.read(shards)
    spec = ScoreCodec().spec
    assert (manifest.codec, manifest.num_codebooks, manifest.codebook_size) == (MODEL_TYPE, 12, spec.codebook_size)
    assert (manifest.sample_rate, manifest.codec_frame_rate, manifest.channels) == (48000, 50, 1)
    codes: dict[str, list[np.ndarray]] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member) for member in tar.getmembers()}
            data = {name: file.read() for name, file in members.items() if file is not None}
        for name in sorted(name for name in data if name.endswith(".codes.npy")):
            meta = json.loads(data[name.replace("codes.npy", "json")])
            codes.setdefault(meta["source"], []).append(np.load(io.BytesIO(data[name])))
    assert sorted(codes) == ["00000.mp4", "00001.mp4"]
    for source, parts in codes.items():
        score = read_midi((clips / source).with_suffix(".mid"), SECONDS)
        expected = ScoreCodec().encode(score)[0].numpy()
        together = np.concatenate(parts, axis=1)
        np.testing.assert_array_equal(together, expected[:, : together.shape[1]])
        assert len(decode_score(together).notes) > 10


def test_video_without_score_is_left_out_by_name(clips: Path, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes((clips / "00000.mp4").read_bytes())
    (tmp_path / "b.mp4").write_bytes((clips / "00000.mp4").read_bytes())
    (tmp_path / "b.mid").write_bytes(b"no MIDI")
    made = shards.parent / "encoders"
    names = [f"--vision-encoder={made / 'clip'}", f"--text-encoder={made / 't5'}", f"--codec={MODEL_TYPE}"]
    assert prepare([*names, "--min-duration-s=2", "--quiet", str(tmp_path), str(tmp_path / "out")]) == 3
    records = [json.loads(line) for line in (tmp_path / "out/prepared.jsonl").read_text().splitlines()]
    assert [record["drop_reason"] for record in records] == ["no_score", "unreadable"]


@pytest.fixture(scope="module")
def model(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model trained on the shards for a few steps."""
    root = tmp_path_factory.mktemp("model")
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    given = ["--data.train", str(shards), "--trainer.default_root_dir", str(root / "run"), "--trainer.logger", "false"]
    small = ["--model.lm.dim", "32", "--model.lm.num_layers", "1", "--data.window", "1", "--data.batch_size", "2"]
    steps = ["--trainer.max_steps", "3", "--checkpoints.every_n_train_steps", "3"]
    config = str(ROOT / "configs/train/tiny.yaml")
    heard = [
        "--data.validation",
        str(shards),
        "--audio_samples.every_n_validations",
        "1",
        "--audio_samples.num_clips=1",
    ]
    assert train(["fit", "--config", config, *given, *quiet, *small, *steps, *heard]) == 0
    assert convert([str(root / "run/checkpoints/step00000003.ckpt"), str(root / "model")]) == 0
    return root / "model"


def test_samples_of_training_are_scores_that_sound(model: Path) -> None:
    """The generated ones, and the originals beside them."""
    waves = list(model.parent.glob("run/audio_samples/*/*.flac"))
    assert {path.parent.name for path in waves} == {"reference", "step00000002", "step00000003"}
    for path in waves:
        wave, rate = soundfile.read(path)
        assert (rate, wave.shape[1]) == (48000, 2)
        assert np.abs(wave).max() > 0.05


def test_trained_model_writes_music_with_midi_and_stems(model: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored.mp4"
    given = ["--recipe", "vidmuse", "--generator.model", str(model), "--generator.device", "cpu", "--out", str(out)]
    windows = ["--generator.window", "1", "--generator.stride", "0.5", "--tags.genres", "jazz", "--seed", "3"]
    assert score([str(clips / "00000.mp4"), *given, *windows, "--midi", "--stems", "--wav"]) == 0
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert sidecar["music"]["style"] == "jazz"
    midi = mido.MidiFile(next(tmp_path.glob("*.mid")))
    assert sum(message.type == "note_on" for track in midi.tracks for message in track) > 5
    assert abs(midi.length - SECONDS) < 2.0
    wave, rate = soundfile.read(next(path for path in tmp_path.glob("*.wav") if "stem" not in path.name))
    assert rate == 48000
    assert abs(len(wave) / rate - SECONDS) < 0.1
    assert np.abs(wave).max() > 0.05


def tiny_model(component: Component) -> V2M:
    lm = LMConfig(dim=16, num_layers=1, num_heads=2, num_codebooks=12, codebook_size=ScoreCodec().spec.codebook_size)
    return V2M(MusicConfig(lm, text_dim=8), components={"codec": component}, sample_rate=48000)


@pytest.mark.parametrize("stored", [True, False])
def test_codec_is_saved_and_loaded_with_its_model(stored: bool, tmp_path: Path) -> None:
    """As a name, or as a config without weights, whose settings come back."""
    config = ScoreCodecConfig(style="waltz") if stored else ScoreCodecConfig()
    component = Component(folder=tmp_path, config=config.to_dict()) if stored else Component(MODEL_TYPE)
    tiny_model(component).save_pretrained(tmp_path / "model")
    loaded = V2M.from_pretrained(str(tmp_path / "model"))
    codec = load_codec(loaded.component("codec"), torch.device("cpu"))
    assert isinstance(codec, ScoreCodec)
    assert codec.config == config
    loaded.check_codec(codec.spec)
    assert [path.name for path in (tmp_path / "model").glob("codec/*")] == (["config.json"] if stored else [])


@pytest.mark.parametrize("layout", ["transformers", "audiocraft"])
def test_layouts_without_scores_are_refused(layout: str, tmp_path: Path) -> None:
    from v2m.checkpoints.export import convert_checkpoint

    tiny_model(Component(MODEL_TYPE)).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="writes scores"):
        convert_checkpoint(str(tmp_path / "model"), tmp_path / "out", layout)
