"""MusicGen generation end to end on tiny checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.fixtures.tiny import encodec, t5
from tests.sketch.stub_videos import video
from v2m.checkpoints import V2M, Component
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio, Controls, SamplingConfig, Soundtrack, Tags
from v2m.generators.musicgen import MusicGen
from v2m.media.audio import save
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig
from v2m.pretrained.chroma import Chroma

RATE = encodec.SAMPLE_RATE
TAGS = Tags(genres=["jazz"], moods=["calm"], tempo=96)
SHORT = {"window": 1.0, "stride": 0.5}


def make(folder: Path, *, stereo: bool = False, melody: bool = False, window: float = 30.0, text: int = 16) -> Path:
    """A random checkpoint whose output depends strongly on its conditions."""
    lm = LMConfig(
        dim=32, num_layers=2, num_heads=4, codebook_size=encodec.CODEBOOK_SIZE, num_codebooks=8 if stereo else 4,
        channels=2 if stereo else 1, cross_attention=not melody,
    )  # fmt: skip
    parts = {
        "codec": Component(folder=encodec.write(folder / "source" / "codec")),
        "text_encoder": Component(folder=t5.write(folder / "source" / "t5")),
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = V2M(
            MusicConfig(lm, text_dim=text, num_chroma=12 if melody else None, segment_duration=window), components=parts
        )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("text.weight", "chroma.weight", "lm.heads")) or "cross_attention" in name:
                value.mul_(6)
    model.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def tuneful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tuneful"), melody=True)


def musicgen(folder: Path, **settings: Any) -> MusicGen:
    return MusicGen(**{"model": str(folder), "device": "cpu", "precision": "fp32", **settings})


def sound(generator: MusicGen, seconds: float, tags: Tags = TAGS, seed: int = 3, **more: Any) -> NDArray[np.float32]:
    return generator.generate(video(seconds), tags, seed, **more).audio.samples


def tune(path: Path, *hertz: float, seconds: float = 1.0) -> Controls:
    """Notes of so many seconds each, as a melody."""
    times = np.arange(round(seconds * RATE)) / RATE
    wave = np.concatenate([0.5 * np.sin(2 * np.pi * item * times) for item in hertz]).astype(np.float32)
    save(Audio(np.stack([wave, wave]), RATE), path)
    return Controls(melody=path)


@pytest.fixture(scope="module")
def long(plain: Path) -> Soundtrack:
    return musicgen(plain, **SHORT).generate(video(2.337), TAGS, 3)


def test_output_matches_video_length_to_the_sample(plain: Path, long: Soundtrack) -> None:
    generator = musicgen(plain, keep_loaded=True)
    assert long.audio.samples.shape == (1, round(2.337 * RATE))
    assert long.audio.sample_rate == RATE
    assert long.audio.samples.any()
    for seconds in (0.01, 0.02, 0.1234567):
        assert sound(generator, seconds).shape == (1, int(np.floor(seconds * RATE + 0.5)))


def test_stereo_model_generates_two_channels(tmp_path: Path) -> None:
    score = musicgen(make(tmp_path, stereo=True)).generate(video(0.5), TAGS, 0)
    left, right = score.audio.samples
    assert score.audio.samples.shape == (2, RATE // 2)
    assert not np.allclose(left, right, atol=1e-3)


def test_metadata_records_the_generation_inputs(long: Soundtrack) -> None:
    facts = long.metadata
    assert facts["prompt"] == "calm jazz music, 96 bpm"
    assert facts["windows"] == [[0.0, 1.0], [0.5, 1.5], [1.0, 2.0], [1.34, 2.34]]
    assert len(set(facts["window_seeds"])) == 4
    assert (facts["precision"], facts["device"], facts["melody"]) == ("fp32", "cpu", None)
    assert facts["frames_per_second"] > 0


def test_windows_do_not_repeat_each_other(long: Soundtrack) -> None:
    frames = long.audio.samples[0, : 115 * 640].astype(np.float64).reshape(115, 640)
    wave = (frames - frames.mean(axis=0)).ravel()  # a random codec hums at its frame rate
    half = RATE // 2
    parts = [wave[start : start + half] for start in range(0, 4 * half, half)]
    alike = [abs(np.corrcoef(a, b)[0, 1]) for n, a in enumerate(parts) for b in parts[:n]]
    assert max(alike) < 0.9


def test_output_depends_on_seed_and_prompt(plain: Path) -> None:
    first, second = musicgen(plain, keep_loaded=True), musicgen(plain)
    music = sound(first, 0.5)
    np.testing.assert_array_equal(music, sound(second, 0.5))
    np.testing.assert_array_equal(music, sound(first, 0.5))
    assert not np.array_equal(music, sound(first, 0.5, seed=4))
    assert not np.array_equal(music, sound(first, 0.5, Tags(genres=["rock"])))


def test_negative_prompt_has_an_effect_only_with_cfg(plain: Path) -> None:
    strong, none = (musicgen(plain, sampling=SamplingConfig(cfg_scale=g), keep_loaded=True) for g in (3.0, 1.0))
    negative = Tags(genres=["jazz"], moods=["calm"], tempo=96, negative=["drums"])
    assert not np.array_equal(sound(strong, 0.5), sound(strong, 0.5, negative))
    np.testing.assert_array_equal(sound(none, 0.5), sound(none, 0.5, negative))


def test_empty_tags_log_a_warning_and_generate_unconditionally(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    strong, none = (musicgen(plain, sampling=SamplingConfig(cfg_scale=g), keep_loaded=True) for g in (3.0, 1.0))
    free = sound(none, 0.5, Tags())
    assert "no tag says what the music should be" in caplog.text
    np.testing.assert_array_equal(free, sound(strong, 0.5, Tags()))
    caplog.clear()
    assert not np.array_equal(free, sound(none, 0.5))
    assert not caplog.text


def test_negative_prompt_alone_has_an_effect_only_with_cfg(plain: Path) -> None:
    strong, none = (musicgen(plain, sampling=SamplingConfig(cfg_scale=g), keep_loaded=True) for g in (3.0, 1.0))
    negative = Tags(negative=["drums"])
    np.testing.assert_array_equal(sound(none, 0.5, Tags()), sound(none, 0.5, negative))
    assert not np.array_equal(sound(strong, 0.5, Tags()), sound(strong, 0.5, negative))


def test_each_window_is_conditioned_on_its_own_part_of_the_melody(tuneful: Path, tmp_path: Path) -> None:
    """Two tunes that differ from 1.5 s on: so does the music from the first window that reaches there."""
    one = tune(tmp_path / "one.wav", 220, 220, 220, 330, 330, seconds=0.5)
    two = tune(tmp_path / "two.wav", 220, 220, 220, 440, 440, seconds=0.5)
    generator = musicgen(tuneful, keep_loaded=True, **SHORT)
    score = generator.generate(video(2.0), TAGS, 0, controls=one)
    a, b = score.audio.samples[0], sound(generator, 2.0, seed=0, controls=two)[0]
    assert score.metadata["windows"] == [[0.0, 1.0], [0.5, 1.5], [1.0, 2.0]]
    assert score.metadata["melody"] == str(tmp_path / "one.wav")
    apart = np.flatnonzero(np.abs(a - b) > 1e-6)[0] / RATE
    assert 1.35 < apart < 1.75  # the codec hears a little around each frame


def test_melody_is_looped_for_longer_videos(tuneful: Path, tmp_path: Path) -> None:
    generator = musicgen(tuneful, keep_loaded=True, **SHORT)
    music = [
        sound(generator, 2.2, controls=controls)
        for controls in (tune(tmp_path / "a.wav", 220, 330), tune(tmp_path / "b.wav", *[220, 330] * 2))
    ]
    np.testing.assert_array_equal(music[0], music[1])
    assert not np.array_equal(music[0], sound(generator, 2.2))


def test_melody_model_without_melody_uses_the_null_chroma(tuneful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = musicgen(tuneful, keep_loaded=True)
    music = sound(generator, 0.3)
    assert music.any()
    monkeypatch.setattr(Chroma, "null", lambda self: torch.zeros(1, self.num_frames, self.num_classes))
    assert not np.array_equal(music, sound(generator, 0.3))


def test_melody_is_rejected_by_a_model_without_melody_conditioning(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"follows no melody: give facebook/musicgen-melody"):
        musicgen(plain).prepare(TAGS, tune(tmp_path / "a.wav", 220))


def test_too_short_or_unreadable_melody_is_rejected(tuneful: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must last a second or more"):
        musicgen(tuneful).prepare(TAGS, tune(tmp_path / "a.wav", 220, seconds=0.9))
    (tmp_path / "b.wav").write_text("la la")
    with pytest.raises(UsageError, match="cannot be read as sound"):
        musicgen(tuneful).prepare(TAGS, Controls(melody=tmp_path / "b.wav"))


def test_window_longer_than_the_training_segment_is_rejected(tmp_path: Path) -> None:
    folder = make(tmp_path, window=2.0)
    with pytest.raises(UsageError, match=r"window 30 s is longer than the 2 s .* give window 2"):
        musicgen(folder).prepare(TAGS, Controls())
    musicgen(folder, window=2.0, stride=1.0).prepare(TAGS, Controls())


def test_text_encoder_dimension_mismatch_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="gives 16 numbers a token, the model reads 24"):
        musicgen(make(tmp_path, text=24)).prepare(TAGS, Controls())


def test_low_memory_defaults_to_int8_precision(plain: Path) -> None:
    result = [
        musicgen(plain, low_memory=True, precision=precision).generate(video(0.1), TAGS, 0).metadata["precision"]
        for precision in (None, "bf16")
    ]
    assert result == ["int8", "bf16"]


def test_release_unloads_the_model_unless_keep_loaded(plain: Path) -> None:
    for keep in (False, True):
        generator = musicgen(plain, keep_loaded=keep)
        generator.generate(video(0.1), TAGS, 0)
        assert generator._engine.loaded
        generator.release()
        assert generator._engine.loaded == keep
        assert [item.name for item in generator.weights] == [str(plain)]


def test_clipping_output_is_normalized_to_peak_one(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    generator = musicgen(plain, keep_loaded=True)
    music = sound(generator, 0.3)
    assert np.abs(music).max() < 1
    with generator._engine.model() as player:
        decode = player.codec.decode
        player.codec.decode = lambda codes: 30 * decode(codes)
    loud = sound(generator, 0.3)
    assert np.abs(loud).max() == pytest.approx(1.0)
    np.testing.assert_allclose(loud, music / np.abs(music).max(), atol=1e-5)
    assert "was made quieter" in caplog.text


def test_progress_is_monotonic_and_ends_at_one(plain: Path) -> None:
    fractions: list[float] = []
    generator = musicgen(plain, **SHORT)
    generator.generate(video(2.4), TAGS, 0, progress=lambda fraction: fractions.append(fraction))  # noqa: PLW0108 - a bound method has no keyword
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(fractions) >= 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 0.5}, "window 0.5 s must be 1 or more"),
        ({"window": float("nan")}, "window nan s"),
        ({"stride": 30.0}, "stride 30 s must lie between 0.5 and 29.5"),
        ({"stride": 0.0}, "stride 0 s"),
        ({"sampling": SamplingConfig(video_cfg_scale=2.0)}, "video_cfg_scale has no effect"),
        ({"device": "tpu"}, "device 'tpu' is none of this machine's"),
    ],
)
def test_invalid_settings_are_rejected(plain: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        musicgen(plain, **settings).prepare(TAGS, Controls())
