"""What becomes of the sound on its way into shards: voices taken out, left and right each by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import ffmpeg
from tests.data.test_prepare import X264, arguments, digests, noise, read, weights
from tests.fixtures.tiny import demucs as tiny_demucs
from tests.fixtures.tiny import encodec as tiny_encodec
from v2m.cli.prepare import main
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio
from v2m.data.config import PrepareConfig
from v2m.data.encode import FilteredOutError, SampleEncoder
from v2m.data.schema import CODES, META, Manifest
from v2m.data.sources import discover_videos
from v2m.media import audio
from v2m.pretrained.codecs import encodec
from v2m.pretrained.demucs import Demucs
from v2m.taggers.heuristic import HeuristicTagger

__all__ = ["weights"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def separator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_demucs.write(tmp_path_factory.mktemp("weights") / "htdemucs")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`b` of 4.1 s with other noise left than right beside it, and `a`, whose own sound that is."""
    root = tmp_path_factory.mktemp("videos")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x54:r=20:d=4.1", *X264, root / "b.mp4")
    wave = np.stack([noise(), noise()[::-1]], axis=1)[: round(4.1 * 32000)]
    soundfile.write(root / "b.wav", wave, 32000, "FLOAT")
    ffmpeg("-i", root / "b.mp4", "-i", root / "b.wav", "-c:v", "copy", "-c:a", "aac", root / "a.mp4")
    return root


def test_vocals_are_removed_before_encoding(
    weights: dict[str, str], videos: Path, separator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = [*arguments(weights, videos, out), "--vocals=remove", f"--separator={separator}"]
    assert main(given) == 0
    manifest, recorded = Manifest.read(out), json.loads((out / "settings.json").read_text())
    assert (manifest.separator, recorded["vocals"], recorded["separator"]) == (str(separator), "remove", str(separator))
    assert len(recorded["separator_sha256"]) == 64
    demucs, codec = Demucs.load(separator, CPU), encodec.load_encodec(Path(weights["codec"]), CPU)
    music = demucs.extract_stems(audio.load(videos / "b.wav", 44100, 4.1), demucs.non_vocal_stems)
    wave = audio.resample(music, 32000).samples.mean(axis=0)
    for meta, codes in ((item[META], item[CODES]) for item in read(out).values() if item[META].source == "b.mp4"):
        part = wave[round(meta.start * 32000) : round((meta.start + meta.duration) * 32000)]
        np.testing.assert_array_equal(codes, codec.encode(torch.from_numpy(part)[None, None])[0])
    before = digests(out)
    assert main(given) == 0
    assert digests(out) == before
    capsys.readouterr()
    assert main(arguments(weights, videos, out)) == 2
    assert "was prepared with separator" in (message := capsys.readouterr().err)
    assert "vocals 'remove', not 'keep'" in message


def test_kept_vocals_need_no_separator(
    weights: dict[str, str], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*arguments(weights, videos, out), "--separator=/nowhere"]) == 0
    assert Manifest.read(out).separator == ""
    capsys.readouterr()
    assert main([*arguments(weights, videos, out), "--vocals=remove", "--separator=/nowhere"]) == 2
    assert "there is no folder '/nowhere'" in capsys.readouterr().err


def test_video_with_only_voice_is_dropped_as_silent(weights: dict[str, str], videos: Path) -> None:
    """Found with a separator that hears voice in everything; `a` has its own sound, `b` a file."""

    class Speech(Demucs):
        def __init__(self) -> None:
            self.sample_rate, self.sources = 44100, ("drums", "vocals")

        def extract_stems(self, audio: Audio, stems: object) -> Audio:
            assert stems == ("drums",)
            return Audio(np.zeros_like(audio.samples), audio.sample_rate)

    settings = PrepareConfig(**weights, min_duration_s=2.0, num_long_term_frames=4)  # type: ignore[arg-type]
    encoder = replace(SampleEncoder.load(settings, HeuristicTagger(), CPU), separator=Speech())
    for source in discover_videos([videos]):
        with pytest.raises(FilteredOutError, match="silent"):
            next(encoder.encode(source))


def test_stereo_encodes_left_and_right_separately(
    weights: dict[str, str], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First codebook of the left, first of the right, second of the left, …"""
    out = tmp_path / "out"
    assert main([*arguments(weights, videos, out), "--stereo=true"]) == 0
    manifest = Manifest.read(out)
    assert (manifest.channels, manifest.num_codebooks) == (2, 8)
    codec = encodec.load_encodec(Path(weights["codec"]), CPU)
    wave = audio.load(videos / "b.wav", 32000, 4.1).samples
    for meta, codes in ((item[META], item[CODES]) for item in read(out).values() if item[META].source == "b.mp4"):
        part = wave[:, round(meta.start * 32000) : round((meta.start + meta.duration) * 32000)]
        for side in (0, 1):
            expected = codec.encode(torch.from_numpy(part[side].copy())[None, None])[0]
            np.testing.assert_array_equal(codes[side::2], expected)
        assert not np.array_equal(codes[::2], codes[1::2])
    assert main(arguments(weights, videos, out)) == 2
    assert "stereo True, not False" in capsys.readouterr().err


def test_stereo_option_is_refused_for_a_stereo_codec(weights: dict[str, str], tmp_path: Path) -> None:
    config = tiny_encodec.make_config(audio_channels=2)
    tiny_encodec.make_model(config).save_pretrained(tmp_path / "codec")
    settings = PrepareConfig(**{**weights, "codec": str(tmp_path / "codec")}, stereo=True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is stereo by itself: leave out `stereo`"):
        SampleEncoder.load(settings, HeuristicTagger(), CPU)


def test_training_and_validation_must_agree_on_vocals(tmp_path: Path) -> None:
    from tests.fixtures.tiny import shards as made
    from v2m.data.module import ShardData

    train = made.write(tmp_path / "train", (2,))
    for name, value in (("separator", "adefossez/HTDemucs"), ("channels", 2)):
        other = made.write(tmp_path / name, (2,), manifest=replace(made.KEPT, **{name: value}))
        with pytest.raises(DependencyError, match=f"another {name} than"):
            ShardData(train, other).setup("fit")
