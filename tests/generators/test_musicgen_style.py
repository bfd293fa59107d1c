"""MusicGen-Style end to end on a tiny checkpoint: a recording's style beside the text, or in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fixtures.tiny import musicgen as plain_models
from tests.fixtures.tiny import musicgen_style as tiny
from tests.sketch.stub_videos import video
from v2m.checkpoints import V2M
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio, Controls, SamplingConfig, Soundtrack, Tags
from v2m.generators.musicgen import MusicGen
from v2m.generators.style_excerpt import StyleOptions
from v2m.generators.vidmuse import VidMuse
from v2m.media.audio import save

TAGS = Tags(genres=["jazz"], moods=["calm"], tempo=96)
OTHER_TAGS = Tags(genres=["rock"], instruments=["electric guitar"], tempo=150)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`model` and `v2m`, what they name, and recordings."""
    folder = tmp_path_factory.mktemp("style")
    tiny.write_named(folder / "named")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("V2M_CHECKPOINTS", str(folder / "named"))
        V2M.from_pretrained(str(tiny.write(folder / "model"))).save_pretrained(folder / "v2m")
        write(folder / "song.wav", tiny.recording(9.0))
        write(folder / "short.wav", tiny.recording(1.0))
        write(folder / "end.wav", np.concatenate([np.zeros(30 * tiny.RATE, np.float32), tiny.recording(4.0)]))
        write(folder / "late.wav", np.concatenate([np.zeros(5 * tiny.RATE, np.float32), tiny.recording(1.0)]))
        yield folder


def write(path: Path, wave: NDArray[np.float32]) -> None:
    save(Audio(np.stack([wave, wave]), tiny.RATE), path)


def generator(folder: Path, name: str = "model", sampling: SamplingConfig = GREEDY, **options: Any) -> MusicGen:
    options = {"style_start": 1.0, "style_seconds": 1.5} | options
    return MusicGen(model=str(folder / name), device="cpu", precision="fp32", sampling=sampling, **options)


def music(generator: MusicGen, tags: Tags = TAGS, seed: int = 3, controls: Controls | None = None) -> Soundtrack:
    return generator.generate(video(1.0), tags, seed, controls=controls)


def samples(*args: Any, **kwargs: Any) -> NDArray[np.float32]:
    return music(*args, **kwargs).audio.samples


def test_style_and_text_each_change_the_music(folder: Path) -> None:
    song = folder / "song.wav"
    both = samples(generator(folder, style=song))
    assert both.any()
    assert not np.array_equal(both, samples(generator(folder)))
    assert not np.array_equal(both, samples(generator(folder, style=song), OTHER_TAGS))
    assert not np.array_equal(both, samples(generator(folder, style=song, style_start=5.0)))
    alone = generator(folder, style=song, use_text=False, keep_loaded=True)
    np.testing.assert_array_equal(samples(alone), samples(alone, OTHER_TAGS))
    assert not np.array_equal(both, samples(alone))


def test_reference_is_the_same_as_the_style_option(folder: Path) -> None:
    by_control = music(generator(folder), controls=Controls(reference=(folder / "song.wav",)))
    by_option = music(generator(folder, style=folder / "song.wav"))
    np.testing.assert_array_equal(by_control.audio.samples, by_option.audio.samples)
    assert by_control.metadata["style_reference"] == by_option.metadata["style_reference"]


def test_beta_of_one_is_plain_guidance_and_five_is_not(folder: Path) -> None:
    song = folder / "song.wav"
    plain, one, five = (
        samples(generator(folder, style=song, sampling=SamplingConfig(temperature=0.0, cfg_beta=beta)))
        for beta in (None, 1.0, 5.0)
    )
    np.testing.assert_array_equal(plain, one)
    assert not np.array_equal(plain, five)


def test_checkpoint_of_v2m_and_a_model_already_in_use_give_the_same(folder: Path) -> None:
    used = generator(folder, keep_loaded=True)
    assert samples(used).any()  # places the model before its style encoder is loaded
    reference = Controls(reference=(folder / "song.wav",))
    expected = samples(used, controls=reference)
    np.testing.assert_array_equal(samples(generator(folder, "v2m"), controls=reference), expected)


def test_metadata_and_weights_record_the_style(folder: Path) -> None:
    sampling = SamplingConfig(temperature=0.0, cfg_scale=2.0, cfg_beta=4.0)
    styled = generator(folder, style=folder / "song.wav", sampling=sampling)
    expected = {"file": str(folder / "song.wav"), "start": 1.0, "seconds": 1.5, "eval_q": 3}
    assert music(styled).metadata["style_reference"] == {**expected, "cfg_scale": 2.0, "cfg_beta": 4.0}
    assert [Path(info.name).name for info in styled.weights] == ["model", "t5-base", "encodec_32khz", "MERT-v1-95M"]
    unstyled = generator(folder)
    assert music(unstyled).metadata["style_reference"] is None
    assert [Path(info.name).name for info in unstyled.weights] == ["model", "t5-base", "encodec_32khz"]


def test_excerpt_without_a_start_is_drawn_by_the_seed(folder: Path) -> None:
    options = StyleOptions(folder / "song.wav")
    (first, start), (again, same), (other, later) = (options.read(tiny.RATE, seed) for seed in (1, 1, 2))
    assert (start, first.samples.shape) == (same, (2, 3 * tiny.RATE))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert abs(start - later) > 0.01
    assert not np.array_equal(first.samples, other.samples)
    assert 0 <= start <= 6
    for seed in range(5):  # of 30 s of silence and 4 of sound
        assert StyleOptions(folder / "end.wav").read(tiny.RATE, seed)[1] > 27


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "gone.wav"}, "gone.wav': no such sound file"),
        ({"style": "model/state_dict.bin"}, "state_dict.bin' cannot be read as sound"),
        ({"style": "short.wav"}, r"short.wav' lasts 1.00 s, too short for a style of 1.5 s from second 1 on"),
        ({"style": "song.wav", "style_start": 8.0}, "lasts 9.00 s, too short for a style of 1.5 s from second 8"),
        ({"style": "late.wav"}, "late.wav' is silent"),
        ({"style": "song.wav", "style_seconds": 5.0}, "style_seconds 5 must lie between 1.5 and 4.5"),
        ({"style": "song.wav", "style_start": -1.0}, "style_start -1 s must lie between"),
        ({"style": "song.wav", "eval_q": 7}, "eval_q 7 must be 1 to 6"),
        ({"sampling": SamplingConfig(cfg_beta=5.0)}, "cfg_beta weighs the text against a style"),
        ({"use_text": False}, "use_text=False leaves nothing to follow"),
    ],
)
def test_impossible_style_is_refused_before_any_work(folder: Path, options: dict[str, Any], words: str) -> None:
    if "style" in options:
        options = options | {"style": folder / options["style"]}
    with pytest.raises(UsageError, match=words):
        generator(folder, **options).prepare(TAGS, Controls())


def test_model_without_style_names_the_one_that_has_it(folder: Path, tmp_path: Path) -> None:
    plain_models.write_transformers(tmp_path / "plain")
    with pytest.raises(UsageError, match=r"plain' follows no style: give facebook/musicgen-style"):
        generator(tmp_path, "plain", style=folder / "song.wav").prepare(TAGS, Controls())


def test_style_model_refuses_a_melody_and_two_references(folder: Path) -> None:
    song = folder / "song.wav"
    with pytest.raises(UsageError, match="follows no melody"):
        generator(folder).prepare(TAGS, Controls(melody=song))
    with pytest.raises(UsageError, match="the style of one recording"):
        generator(folder, style=song).prepare(TAGS, Controls(reference=(song,)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_extractor_cqt": True}, "is a MERT with feature_extractor_cqt True: give m-a-p/MERT-v1-95M"),
        ({"attention_relax": 32.0}, "is a MERT with attention_relax 32.0"),
        ({"model_type": "wav2vec2"}, "is no MERT: its config.json says 'wav2vec2'"),
        ({"num_hidden_layers": 2}, "does not fit MERT"),
    ],
)
def test_another_style_encoder_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    tiny.write_named(tmp_path)
    (tmp_path / "MERT-v1-95M" / "config.json").write_text(json.dumps(tiny.mert_config() | changes))
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    with pytest.raises(DependencyError, match=words):
        generator(folder, style=folder / "song.wav").prepare(TAGS, Controls())


def test_vidmuse_refuses_the_scale_of_a_style() -> None:
    with pytest.raises(UsageError, match="cfg_beta has no effect"):
        VidMuse(sampling=SamplingConfig(cfg_beta=5.0))
