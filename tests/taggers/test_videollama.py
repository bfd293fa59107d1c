"""The tagger with tiny models in the published formats: one trained to give an answer, one with random weights."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.fixtures.tiny.videollama import BOTH, SONG, make_native, make_original, split_tokenizer
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import Tags, Video
from v2m.media import video as opening
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.llm_answers import TAG_LISTS, answer_form, tags_schema
from v2m.taggers.llm_tagger import complete_tags
from v2m.taggers.videollama import VideoLLaMA3
from v2m.taggers.videollama_model import load_videollama

ROOT = Path(__file__).parents[2]
RECIPE = yaml.safe_load((ROOT / "configs" / "infer" / "v2b.yaml").read_text())["tagger"]["init_args"]
PROMPTS: dict[str, Any] = {name: RECIPE[name] for name in ("prompt", "lyrics_prompt")}
SMALL: dict[str, Any] = PROMPTS | {"device": "cpu", "max_frames": 3, "pixels": 4 * 784, "max_new_tokens": 90}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(v2b_weights: Path) -> Path:
    return v2b_weights / "tagger"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_original(tmp_path_factory.mktemp("tiny") / "original", shards=2)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_native(tmp_path_factory.mktemp("tiny") / "native")


@pytest.fixture(scope="module")
def clip(media: Path) -> Video:
    return opening.open(media / "cuts.mp4")


def test_videollama_reads_tags_from_its_answer_and_hints_replace_them(trained: Path, clip: Video) -> None:
    tagger = VideoLLaMA3(str(trained), **SMALL)
    fractions: list[float] = []

    def note(fraction: float) -> None:
        fractions.append(fraction)

    assert isinstance(tagger, Tagger)
    tags = tagger.tag(clip, Tags(moods="tense", negative="harp"), note)
    assert tags.caption == "A kite flies over a hill."
    assert (tags.genres, tags.instruments, tags.moods) == (("ambient", "cinematic"), ("piano",), ("tense",))
    assert (tags.timbres, tags.tempo, tags.key) == (("warm", "airy"), 72.0, None)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > 10
    assert [info.folder for info in tagger.weights] == [trained]
    assert tagger.tag(clip, Tags(moods="tense", negative="harp")) == tags
    tagger.release()


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights_leave_vision_encoder_and_projector_in_float32(trained: Path, clip: Video, bits: Any) -> None:
    tagger = VideoLLaMA3(str(trained), bits=bits, **SMALL)
    assert tagger.tag(clip, Tags()).tempo == 72.0
    with tagger._lazy_model.model() as loaded:
        model: Any = loaded
        parts = model.model.model
    assert parts.language_model.layers[0].mlp.up_proj.weight.dtype in {torch.int8, torch.uint8}
    assert parts.vision_model.encoder.layers[0].mlp.fc1.weight.dtype == torch.float32
    assert parts.projector.readout[0].weight.dtype == torch.float32


@pytest.mark.parametrize("bits", [None, 4])
def test_truncated_answer_gives_measured_tags_and_a_warning(
    original: Path, clip: Video, caplog: pytest.LogCaptureFixture, bits: Any
) -> None:
    brief: dict[str, Any] = SMALL | {"max_new_tokens": 4}
    with caplog.at_level(logging.WARNING, "v2m"):
        tags = VideoLLaMA3(str(original), bits=bits, **brief).tag(clip, Tags(tempo=90))
    assert tags == HeuristicTagger().tag(clip, Tags(tempo=90))
    assert "could not be read" in caplog.text


def test_lyrics_are_requested_for_vocals_without_lyrics(tmp_path: Path, clip: Video) -> None:
    folder = make_original(tmp_path / "singer", answer=BOTH)
    tagger = VideoLLaMA3(str(folder), **SMALL)
    full = Tags(genres="pop", instruments="piano", moods="calm", tempo=90, key="C major")
    assert tagger.tag(clip, replace(full, vocals=True)).lyrics == SONG
    assert tagger.tag(clip, replace(full, vocals=True, lyrics="la")).lyrics == "la"
    assert tagger.tag(clip, full).lyrics == ""


def test_out_of_memory_error_names_settings_to_lower_and_frees_the_model(trained: Path, clip: Video) -> None:
    tagger = VideoLLaMA3(str(trained), **SMALL)

    def allocate_too_much(fraction: float) -> None:
        if fraction > 0.45:  # while the answer is generated
            torch.empty(2**48)

    with pytest.raises(MemoryError, match=r"tagger\.bits=4.*tagger\.max_frames.*tagger\.pixels.*low_memory=True"):
        tagger.tag(clip, Tags(), allocate_too_much)
    assert not tagger._lazy_model.loaded
    assert tagger.tag(clip, Tags()).tempo == 72.0


def test_video_beyond_the_aspect_ratio_limit_is_measured_instead(
    clip: Video, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    tagger = VideoLLaMA3(str(tmp_path / "no weights"), **SMALL)
    for width, height in ((4000, 20), (20, 4000)):
        caplog.clear()
        ribbon = replace(clip, width=width, height=height)
        assert tagger.tag(ribbon, Tags(tempo=90)) == HeuristicTagger().tag(ribbon, Tags(tempo=90))
        assert "too narrow" in caplog.text
    with pytest.raises(UsageError, match="no weights"):
        tagger.tag(replace(clip, width=3980, height=20), Tags())


def test_models_negative_tags_drop_words_that_tags_or_hints_contain(clip: Video) -> None:
    answer = Tags(
        genres="jazz, trap", instruments="piano, electric guitars", moods="calm", negative="drums, piano, harp, organ"
    )
    assert complete_tags(clip, answer, Tags(), "VideoLLaMA3").negative == ("drums", "harp", "organ")
    assert complete_tags(clip, answer, Tags(instruments="Harp"), "VideoLLaMA3").negative == ("drums", "piano", "organ")
    avoided = complete_tags(clip, answer, Tags(negative="guitar, rap"), "VideoLLaMA3")
    assert avoided.negative == ("guitar", "rap")
    assert (avoided.genres, avoided.instruments) == (("jazz", "trap"), ("piano",))


def test_missing_tags_are_measured_without_negative_words(clip: Video, caplog: pytest.LogCaptureFixture) -> None:
    answer = Tags(caption="A hill.", genres="jazz", timbres="warm", tempo=70, negative="piano", lyrics="la la")
    tags = complete_tags(clip, answer, Tags(), "VideoLLaMA3")
    measured = HeuristicTagger().tag(clip, Tags(genres="jazz", negative="piano"))
    assert (tags.instruments, tags.moods) == (measured.instruments, measured.moods)
    assert "piano" in HeuristicTagger().tag(clip, Tags(genres="jazz")).instruments
    assert "piano" not in tags.instruments
    assert (tags.caption, tags.genres, tags.timbres, tags.tempo) == ("A hill.", ("jazz",), ("warm",), 70)
    assert tags.lyrics == "la la"
    assert "named no instruments and no moods" in caplog.text


def test_question_contains_answer_form_and_hints(clip: Video) -> None:
    answer = '{"caption": "A hill.", "genres": ["jazz"], "instruments": ["piano", "harp"], "moods": ["calm"]}'
    asked: list[tuple[str, Any]] = []

    class Scripted:
        def prepare_inputs(self, frames: Any, times: list[float], question: str, max_pixels: int) -> dict[str, Any]:
            assert (len(frames), len(times), max_pixels) == (3, 3, 4 * 784)
            return {"question": question}

        def generate(self, inputs: Any, max_new_tokens: int, schema: Any = None, streamer: Any = None) -> str:
            asked.append((inputs["question"], schema))
            return answer

    tagger = VideoLLaMA3("none", **SMALL)
    tagger._lazy_model._load = Scripted
    tags = tagger.tag(clip, Tags(tempo=90, key="C major", negative="drums", lyrics="la", caption="Seen."))
    decided = "\nThis is decided already: caption: Seen.; tempo: 90 BPM; key: C major; avoid: drums."
    question = f"{PROMPTS['prompt']}\n{answer_form(with_caption=True)}"
    assert asked == [(question + decided, tags_schema(with_caption=True))]
    assert (tags.genres, tags.instruments, tags.moods) == (("jazz",), ("piano", "harp"), ("calm",))
    asked.clear()
    assert tagger.tag(clip, Tags(vocals=True, lyrics="la")).genres == ("jazz",)
    assert asked == [(question, tags_schema(with_caption=True))]  # and no lyrics, which are given


def test_random_model_gives_caption_and_all_tags(native: Path, clip: Video) -> None:
    roomy: dict[str, Any] = SMALL | {"max_new_tokens": 1200}
    tagger = VideoLLaMA3(str(native), **roomy)
    tags = tagger.tag(clip, Tags())
    assert tags.caption
    assert all(getattr(tags, name) for name in TAG_LISTS)
    assert tags.tempo is not None
    assert tags != HeuristicTagger().tag(clip, Tags())


def test_weights_in_a_pickle_read_as_those_in_safetensors(tmp_path: Path) -> None:
    """As the authors' trainer saves them: pytorch_model.bin, or its shards."""
    folder = make_original(tmp_path / "model")
    expected = load_videollama(folder, "cpu", None).model.state_dict()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    tagger = VideoLLaMA3(str(folder), **SMALL)
    tagger.prepare()
    state = load_videollama(tagger.weights[0].folder, "cpu", None).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize("same", [False, True])
def test_output_layer_that_config_ties_but_the_file_has_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, same: bool
) -> None:
    folder = make_original(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    embedding = state["model.embed_tokens.weight"]
    state["lm_head.weight"] = embedding.clone() if same else embedding + 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    model = load_videollama(folder, "cpu", None).model
    warned = "config.json says tie_word_embeddings, but lm_head.weight differs: that of the file is used"
    assert (warned in caplog.text) != same
    assert torch.equal(model.lm_head.weight, state["lm_head.weight"])
    assert torch.equal(model.get_input_embeddings().weight, embedding)


def test_tokenizer_from_vocab_and_merges_equals_tokenizer_json(original: Path, tmp_path: Path) -> None:
    split = split_tokenizer(Path(shutil.copytree(original, tmp_path / "split")))
    one_file, two_files = (load_videollama(folder, "cpu", None) for folder in (original, split))
    frames = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    texts = [
        model.prepare_inputs(frames, [0.0, 1.0], "Music, 90 BPM?", 3136)["input_ids"] for model in (one_file, two_files)
    ]
    assert torch.equal(*texts)
    assert two_files.processor.tokenizer.get_vocab() == one_file.processor.tokenizer.get_vocab()
    (split / "merges.txt").unlink()
    with pytest.raises(DependencyError, match="cannot be read") as error:
        load_videollama(split, "cpu", None)
    assert "\n" not in str(error.value)


def test_prompt_contains_the_time_of_each_frame(native: Path, clip: Video) -> None:
    loaded = load_videollama(native, "cpu", None)
    frames = np.random.default_rng(0).integers(0, 256, (3, 56, 84, 3), np.uint8)
    inputs = loaded.prepare_inputs(frames, [0.0, 1.24, 61.0], "What?", 100_352)
    text = loaded.processor.tokenizer.decode(inputs["input_ids"][0])
    parts = [part.strip(",\n").split("s:")[0] for part in text.split("Time ")[1:]]
    assert parts == ["0.0", "1.2", "61.0"]
    assert text.count("<|video_pad|>") == int(inputs["video_compression_mask"].sum())
    assert text.endswith("What?<|im_end|>\n<|im_start|>assistant\n")


def test_pixels_setting_limits_tokens_per_frame(native: Path) -> None:
    loaded = load_videollama(native, "cpu", None)
    frames = np.random.default_rng(0).integers(0, 256, (2, 360, 640, 3), np.uint8)
    for pixels in (784, 12_544, 50_176):
        grid = loaded.prepare_inputs(frames, [0.0, 1.0], "?", pixels)["video_grid_thw"][0]
        assert int(grid[1] * grid[2]) // 4 <= pixels // 784


def test_random_models_answer_depends_on_the_frames(native: Path) -> None:
    loaded = load_videollama(native, "cpu", None)
    frames = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    prepared = [loaded.prepare_inputs(images, [0.0, 1.0], "?", 3136) for images in (frames, frames // 4)]
    answers = {loaded.generate(inputs, 12) for inputs in prepared}
    assert len(answers) == 2


def test_load_rejects_weights_of_other_models_and_broken_files(native: Path, original: Path, tmp_path: Path) -> None:
    def broken(folder: Path, change: str) -> Path:
        copy = Path(shutil.copytree(folder, tmp_path / f"{folder.name} {change}"))
        config = json.loads((copy / "config.json").read_text())
        if change == "other type":
            (copy / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
        elif change == "no config":
            (copy / "config.json").unlink()
        elif change == "no pads":
            text = (copy / "tokenizer.json").read_text()
            (copy / "tokenizer.json").write_text(text.replace("<|video_pad|>", "<|other_pad|>"))
        else:
            path = sorted(copy.glob("*.safetensors"))[0]
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return copy

    for folder, change, message in [
        (native, "other type", "model_type 'llama'"),
        (native, "no config", "config.json"),
        (original, "no pads", r"<\|video_pad\|>"),
        (native, "cut", "safetensors"),
        (original, "cut", "safetensors"),
    ]:
        tagger = VideoLLaMA3(str(broken(folder, change)), **SMALL)
        with pytest.raises(DependencyError, match=message) as error:
            tagger._load()
        assert "\n" not in str(error.value)


def test_constructor_reports_all_invalid_settings_at_once() -> None:
    with pytest.raises(UsageError, match=r"fps.*pixels.*max_frames"):
        VideoLLaMA3(**PROMPTS, fps=0, pixels=3, max_frames=0)


def test_prompts_are_required_and_must_not_be_empty() -> None:
    with pytest.raises(TypeError, match="lyrics_prompt"):
        VideoLLaMA3(prompt="a")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"^lyrics_prompt must not be empty$"):
        VideoLLaMA3(**dict[str, Any](PROMPTS, lyrics_prompt=" \n"))


def test_prepare_rejects_an_unknown_device_before_fetching_weights() -> None:
    with pytest.raises(UsageError, match="device 'tpu' is none of this machine's"):
        VideoLLaMA3("no/such/folder/at/all", **PROMPTS, device="tpu").prepare()


def test_low_memory_sets_four_bits_and_fewer_smaller_frames() -> None:
    low = VideoLLaMA3(**PROMPTS, low_memory=True)
    assert (low.bits, low.max_frames, low.pixels) == (4, 16, 50_176)
    assert VideoLLaMA3(**PROMPTS, low_memory=True, bits=8).bits == 8


def test_prompt_beyond_the_context_length_is_a_usage_error(native: Path, clip: Video) -> None:
    long: dict[str, Any] = SMALL | {"max_new_tokens": 9000}
    tagger = VideoLLaMA3(str(native), **long)
    with pytest.raises(UsageError, match=r"more than the model can read: give fewer `tagger\.max_frames`"):
        tagger.tag(clip, Tags())
