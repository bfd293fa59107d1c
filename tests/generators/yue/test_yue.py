"""YuE generation end to end on tiny checkpoints in the published formats."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fixtures.tiny import v2b, yue_lm
from tests.sketch.stub_videos import video
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio, Controls, Soundtrack, Tags
from v2m.generators.yue import YuE
from v2m.generators.yue.audio import SAMPLE_RATE
from v2m.media.audio import save

SONG = "[verse]\nhappy sun\n\n[chorus]\nthe music from the sun\n"


@pytest.fixture(scope="module")
def folder(v2b_weights: Path) -> Path:
    return v2b_weights


def yue(folder: Path, **settings: Any) -> YuE:
    return YuE(**{**v2b.yue_arguments(folder), "device": "cpu", **settings})


@pytest.fixture(scope="module")
def instrumental(folder: Path) -> Soundtrack:
    return yue(folder, max_section=1.0).generate(video(2.337, ((0.8, 1.0),)), Tags(genres=["jazz"]), 3, stems=True)


@pytest.fixture(scope="module")
def song(folder: Path) -> Soundtrack:
    tags = Tags(genres=["pop"], vocals=True, lyrics=SONG)
    return yue(folder, max_section=1.0).generate(video(1.5), tags, 3, stems=True)


def test_output_matches_video_length_to_the_sample(instrumental: Soundtrack, song: Soundtrack) -> None:
    assert instrumental.audio.samples.shape == (1, round(2.337 * SAMPLE_RATE))
    assert song.audio.samples.shape == (1, round(1.5 * SAMPLE_RATE))
    assert instrumental.audio.samples.any()


def test_sections_are_contiguous_and_aligned_with_the_cut(instrumental: Soundtrack) -> None:
    sections = instrumental.sections
    assert [section.name for section in sections] == ["verse", "chorus", "outro"]
    assert sections[0].start == 0
    assert [a.end for a in sections[:-1]] == [b.start for b in sections[1:]]
    assert sections[-1].end == pytest.approx(2.337)
    assert sections[0].end == pytest.approx(0.8)


def test_instrumental_output_has_no_vocal_stem_and_equals_its_stem(instrumental: Soundtrack) -> None:
    assert list(instrumental.stems) == ["instrumental"]
    np.testing.assert_array_equal(instrumental.audio.samples, instrumental.stems["instrumental"].samples)
    assert instrumental.metadata["genre_line"].startswith("instrumental jazz")


def test_song_stems_sum_to_the_mix(song: Soundtrack) -> None:
    assert sorted(song.stems) == ["instrumental", "vocals"]
    summed = song.stems["vocals"].samples + song.stems["instrumental"].samples
    np.testing.assert_allclose(song.audio.samples, summed, atol=1e-6)
    assert np.sqrt((song.stems["vocals"].samples ** 2).mean()) > 1e-4
    assert song.metadata["lyrics"] == ["happy sun", "the music from the sun"]


def test_output_is_determined_by_the_seed(folder: Path) -> None:
    first, second = (yue(folder, keep_loaded=True) for _ in range(2))
    clip, tags = video(0.2), Tags(genres=["jazz"])
    music = [
        generator.generate(clip, tags, seed).audio.samples for generator, seed in ((first, 3), (second, 3), (first, 4))
    ]
    np.testing.assert_array_equal(music[0], music[1])
    assert not np.array_equal(music[0], music[2])


def test_models_are_unloaded_after_use_unless_keep_loaded(folder: Path) -> None:
    for keep in (False, True):
        generator = yue(folder, keep_loaded=keep)
        generator.generate(video(0.1), Tags(), 0)
        generator.release()
        assert [model.loaded for model in generator._components._models.values()] == [keep] * 3


def test_lyrics_exceeding_the_duration_are_truncated_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    score = yue(folder).generate(video(0.4), Tags(vocals=True, lyrics=SONG), 0)
    assert score.metadata["lyrics"] == ["happy sun"]
    assert "room for 1 of the lyrics' 2 sections" in caplog.text


def test_section_after_the_last_lyrics_is_instrumental(folder: Path) -> None:
    score = yue(folder, max_section=1.0).generate(video(2.5), Tags(vocals=True, lyrics=SONG), 0)
    assert score.metadata["lyrics"] == ["happy sun", "the music from the sun", ""]


def test_vocals_without_lyrics_warn_and_generate_an_instrumental(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    score = yue(folder).generate(video(0.2), Tags(vocals=True), 0, stems=True)
    assert list(score.stems) == ["instrumental"]
    assert "there are no lyrics" in caplog.text


def test_reference_uses_the_icl_checkpoint_and_changes_the_output(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, (2, 16_800)).astype(np.float32)
    save(Audio(noise, 16_000), tmp_path / "noise.wav")
    shutil.copytree(folder / "stage1", tmp_path / "icl")
    result = []
    for files in ((), ("noise.wav",), ("noise.wav", "noise.wav")):
        generator = yue(folder, stage1_reference=str(tmp_path / "icl"))
        controls = Controls(reference=tuple(tmp_path / name for name in files))
        result.append(generator.generate(video(0.5), Tags(), 0, controls=controls).audio.samples)
        assert generator.weights[0].name.endswith("icl" if files else "stage1")
    assert not np.array_equal(result[0], result[1])
    assert not np.array_equal(result[1], result[2])


def test_too_short_reference_is_rejected_in_prepare(folder: Path, tmp_path: Path) -> None:
    save(Audio(np.ones((2, 8_000), np.float32), 16_000), tmp_path / "blip.wav")
    with pytest.raises(UsageError, match="a second or more"):
        yue(folder).prepare(Tags(), Controls(reference=(tmp_path / "blip.wav",)))


@pytest.mark.parametrize(
    ("lyrics", "words"), [("[verse]\n\n", "no words"), ("[verse]\nla\n[yodel]\nlo", r"line 3 has \[yodel\]")]
)
def test_invalid_lyrics_are_rejected_in_prepare(folder: Path, lyrics: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        yue(folder).prepare(Tags(vocals=True, lyrics=lyrics), Controls())


def test_low_memory_uses_4_bit_weights_and_small_batches(folder: Path, tmp_path: Path) -> None:
    for part, vocab in (
        ("stage1", yue_lm.STAGE_1_VOCAB),
        ("stage2", yue_lm.STAGE_2_VOCAB),
    ):  # as wide as 4-bit kernels ask for
        yue_lm.write(tmp_path / part, vocab, hidden=64, layers=1, heads=2, kv_heads=1, ffn=64)
    shutil.copy(folder / "stage1" / "tokenizer.model", tmp_path / "stage1")
    shutil.copytree(folder / "codec", tmp_path / "codec")
    generator = yue(tmp_path, low_memory=True, keep_loaded=True)
    score = generator.generate(video(0.2), Tags(), 0)
    assert (generator._components.bits, generator.stage2_batch_size) == (4, 4)
    assert len(score.audio) == round(0.2 * SAMPLE_RATE)
    with generator._components.model("stage2") as model:
        assert type(model.model.layers[0].mlp.up_proj).__name__ == "PackedLinear"


def test_progress_is_monotonic_and_ends_at_one(folder: Path) -> None:
    fractions: list[float] = []
    yue(folder).generate(video(0.4), Tags(), 0, progress=lambda fraction: fractions.append(fraction))  # noqa: PLW0108 - a bound method has no keyword
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(fractions) > 30


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _shorten_vocabulary(folder: Path) -> None:
    v2b.write_stage(folder, 4000)


class _Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("part", "spoil", "words"),
    [
        ("stage1", lambda f: _truncate(f / "model.safetensors"), "is truncated or no safetensors file"),
        ("stage2", lambda f: _truncate(f / "model.safetensors"), "is truncated or no safetensors file"),
        ("stage1", _shorten_vocabulary, "vocabulary has 4000 tokens"),
        (
            "stage2",
            lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
            "model_type 'bert', not 'llama'",
        ),
        ("stage2", lambda f: (f / "config.json").write_text("<html>"), "web page"),
        ("stage1", lambda f: (f / "tokenizer.model").write_bytes(b"\x00" * 99), "SentencePiece"),
        ("stage1", lambda f: (f / "tokenizer.model").unlink(), "lacks tokenizer.model"),
        ("stage2", lambda f: (f / "model.safetensors").unlink(), "lacks"),
        ("codec", lambda f: _truncate(f / "final_ckpt" / "ckpt_00360000.pth"), "ckpt_00360000.pth"),
        ("codec", lambda f: (f / "decoders" / "decoder_151000.pth").unlink(), "decoder_151000.pth"),
    ],
)
def test_invalid_checkpoint_raises_a_one_line_error_with_its_path(
    folder: Path, tmp_path: Path, part: str, spoil: Any, words: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "weights"))
    spoil(copy / part)
    with pytest.raises(DependencyError) as error:
        yue(copy).generate(video(0.1), Tags(), 0)
    assert words in str(error.value)
    assert str(copy / part) in str(error.value)
    assert "\n" not in str(error.value)


def test_pickle_containing_code_is_rejected_and_not_executed(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "weights"))
    torch.save({"codec_model": _Hostile(tmp_path / "owned")}, copy / "codec" / "final_ckpt" / "ckpt_00360000.pth")
    with pytest.raises(DependencyError, match="holds code and is refused"):
        yue(copy).generate(video(0.1), Tags(), 0)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(("name", "value"), [("max_section", 0.5), ("max_section", 31.0), ("stage2_batch_size", 0)])
def test_out_of_range_setting_is_rejected_with_its_value(folder: Path, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=str(value).removesuffix(".0")):
        yue(folder, **{name: value})


def test_unknown_device_is_rejected_before_looking_for_weights() -> None:
    generator = YuE(stage1="no/such/folder/at/all", device="tpu")
    with pytest.raises(UsageError, match="device 'tpu' is none of this machine's"):
        generator.prepare(Tags(), Controls())
