"""The whole generator on tiny checkpoints of our own layout."""

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
    """A random checkpoint, on which what it is told has a strong effect."""
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
    wave = np.concatenate([0.5 * np.sin(2 * np.pi * each * times) for each in hertz]).astype(np.float32)
    save(Audio(np.stack([wave, wave]), RATE), path)
    return Controls(melody=path)


@pytest.fixture(scope="module")
def long(plain: Path) -> Soundtrack:
    return musicgen(plain, **SHORT).generate(video(2.337), TAGS, 3)


def test_the_music_is_exactly_as_long_as_the_video(plain: Path, long: Soundtrack) -> None:
    generator = musicgen(plain, keep_loaded=True)
    assert long.audio.samples.shape == (1, round(2.337 * RATE))
    assert long.audio.sample_rate == RATE
    assert long.audio.samples.any()
    for seconds in (0.01, 0.02, 0.1234567):
        assert sound(generator, seconds).shape == (1, int(np.floor(seconds * RATE + 0.5)))


def test_a_stereo_model_plays_two_sides(tmp_path: Path) -> None:
    score = musicgen(make(tmp_path, stereo=True)).generate(video(0.5), TAGS, 0)
    left, right = score.audio.samples
    assert score.audio.samples.shape == (2, RATE // 2)
    assert not np.allclose(left, right, atol=1e-3)


def test_the_sidecar_is_told_what_the_model_was_told(long: Soundtrack) -> None:
    facts = long.metadata
    assert facts["prompt"] == "calm jazz music, 96 bpm"
    assert facts["windows"] == [[0.0, 1.0], [0.5, 1.5], [1.0, 2.0], [1.34, 2.34]]
    assert len(set(facts["window_seeds"])) == 4
    assert (facts["precision"], facts["device"], facts["melody"]) == ("fp32", "cpu", None)
    assert facts["frames_per_second"] > 0


def test_no_window_repeats_another(long: Soundtrack) -> None:
    frames = long.audio.samples[0, : 115 * 640].astype(np.float64).reshape(115, 640)
    wave = (frames - frames.mean(axis=0)).ravel()  # a random codec hums at its frame rate
    half = RATE // 2
    parts = [wave[start : start + half] for start in range(0, 4 * half, half)]
    alike = [abs(np.corrcoef(a, b)[0, 1]) for n, a in enumerate(parts) for b in parts[:n]]
    assert max(alike) < 0.9


def test_the_seed_decides_and_the_words_count(plain: Path) -> None:
    first, second = musicgen(plain, keep_loaded=True), musicgen(plain)
    music = sound(first, 0.5)
    np.testing.assert_array_equal(music, sound(second, 0.5))
    np.testing.assert_array_equal(music, sound(first, 0.5))
    assert not np.array_equal(music, sound(first, 0.5, seed=4))
    assert not np.array_equal(music, sound(first, 0.5, Tags(genres=["rock"])))


def test_what_is_unwanted_leads_away_with_guidance_and_not_without(plain: Path) -> None:
    strong, none = (musicgen(plain, sampling=SamplingConfig(cfg_scale=g), keep_loaded=True) for g in (3.0, 1.0))
    unwanted = Tags(genres=["jazz"], moods=["calm"], tempo=96, negative=["drums"])
    assert not np.array_equal(sound(strong, 0.5), sound(strong, 0.5, unwanted))
    np.testing.assert_array_equal(sound(none, 0.5), sound(none, 0.5, unwanted))


def test_no_tags_at_all_are_told_and_the_music_is_unconditioned(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    strong, none = (musicgen(plain, sampling=SamplingConfig(cfg_scale=g), keep_loaded=True) for g in (3.0, 1.0))
    free = sound(none, 0.5, Tags())
    assert "no tag says what the music should be" in caplog.text
    np.testing.assert_array_equal(free, sound(strong, 0.5, Tags()))
    caplog.clear()
    assert not np.array_equal(free, sound(none, 0.5))
    assert not caplog.text


def test_unwanted_words_alone_are_led_away_from_and_never_towards(plain: Path) -> None:
    strong, none = (musicgen(plain, sampling=SamplingConfig(cfg_scale=g), keep_loaded=True) for g in (3.0, 1.0))
    unwanted = Tags(negative=["drums"])
    np.testing.assert_array_equal(sound(none, 0.5, Tags()), sound(none, 0.5, unwanted))
    assert not np.array_equal(sound(strong, 0.5, Tags()), sound(strong, 0.5, unwanted))


def test_each_window_hears_its_own_part_of_the_melody(tuneful: Path, tmp_path: Path) -> None:
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


def test_a_melody_begins_anew_where_the_video_is_longer(tuneful: Path, tmp_path: Path) -> None:
    generator = musicgen(tuneful, keep_loaded=True, **SHORT)
    music = [
        sound(generator, 2.2, controls=controls)
        for controls in (tune(tmp_path / "a.wav", 220, 330), tune(tmp_path / "b.wav", *[220, 330] * 2))
    ]
    np.testing.assert_array_equal(music[0], music[1])
    assert not np.array_equal(music[0], sound(generator, 2.2))


def test_without_a_melody_a_model_that_follows_one_hears_none(tuneful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = musicgen(tuneful, keep_loaded=True)
    music = sound(generator, 0.3)
    assert music.any()
    monkeypatch.setattr(Chroma, "null", lambda self: torch.zeros(1, self.num_frames, self.num_classes))
    assert not np.array_equal(music, sound(generator, 0.3))


def test_a_melody_needs_a_model_that_follows_one(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"follows no melody: give facebook/musicgen-melody"):
        musicgen(plain).prepare(TAGS, tune(tmp_path / "a.wav", 220))


def test_a_melody_that_is_too_short_or_no_sound_is_refused(tuneful: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must last a second or more"):
        musicgen(tuneful).prepare(TAGS, tune(tmp_path / "a.wav", 220, seconds=0.9))
    (tmp_path / "b.wav").write_text("la la")
    with pytest.raises(UsageError, match="cannot be read as sound"):
        musicgen(tuneful).prepare(TAGS, Controls(melody=tmp_path / "b.wav"))


def test_windows_longer_than_the_model_was_trained_on_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, window=2.0)
    with pytest.raises(UsageError, match=r"window 30 s is longer than the 2 s .* give window 2"):
        musicgen(folder).prepare(TAGS, Controls())
    musicgen(folder, window=2.0, stride=1.0).prepare(TAGS, Controls())


def test_a_text_encoder_of_another_width_is_told(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="gives 16 numbers a token, the model reads 24"):
        musicgen(make(tmp_path, text=24)).prepare(TAGS, Controls())


def test_low_memory_makes_8_bit_weights_unless_told_otherwise(plain: Path) -> None:
    found = [
        musicgen(plain, low_memory=True, precision=precision).generate(video(0.1), TAGS, 0).metadata["precision"]
        for precision in (None, "bf16")
    ]
    assert found == ["int8", "bf16"]


def test_the_model_is_freed_unless_it_is_to_stay(plain: Path) -> None:
    for keep in (False, True):
        generator = musicgen(plain, keep_loaded=keep)
        generator.generate(video(0.1), TAGS, 0)
        assert generator._engine.loaded
        generator.release()
        assert generator._engine.loaded == keep
        assert [each.name for each in generator.weights] == [str(plain)]


def test_loud_music_is_made_quieter_as_a_whole(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_progress_rises_to_one(plain: Path) -> None:
    told: list[float] = []
    generator = musicgen(plain, **SHORT)
    generator.generate(video(2.4), TAGS, 0, progress=lambda fraction: told.append(fraction))  # noqa: PLW0108 - a bound method has no keyword
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert len(told) >= 5


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
def test_settings_that_cannot_be_are_refused(plain: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        musicgen(plain, **settings).prepare(TAGS, Controls())
