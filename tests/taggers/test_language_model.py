"""LanguageModel with tiny chat models in the published formats that were trained to give an answer."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures.tiny import chat as tiny
from tests.fixtures.tiny import yue_lm
from v2m.cli.score import main
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, Tags, Video
from v2m.media import video as opening
from v2m.taggers.base import as_tagger
from v2m.taggers.chat_model import load_chat_model
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.language_model import LanguageModel, merge_hints
from v2m.taggers.llm_answers import TAG_LISTS, answer_form, tags_schema
from v2m.taggers.videollama import VideoLLaMA3

SMALL: dict[str, Any] = {"device": "cpu", "max_new_tokens": 80}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family that answers in the form asked for, and three of Qwen2's that do not."""
    folder = tmp_path_factory.mktemp("chat")
    for family in ("mistral", "qwen2", "gemma"):
        tiny.write(folder / family, family)
    for name, text in (("prose", tiny.PROSE), ("nonsense", tiny.NONSENSE), ("empty", "")):
        tiny.write(folder / name, answer=text)
    return folder


@pytest.fixture(scope="module")
def clip(media: Path) -> Video:
    return opening.open(media / "cuts.mp4")


@dataclass
class FixedCaptioner:
    """A captioner without a model."""

    caption: str = "A kite flies over a hill."
    released: int = 0

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        return Tags(caption=self.caption, genres="polka").overridden_by(hints)

    def release(self) -> None:
        self.released += 1


@dataclass
class Scripted:
    """A chat model that gives answers in turn and keeps what it was asked."""

    answers: list[str]
    asked: list[tuple[str, str]] = field(default_factory=list)
    schemas: list[Any] = field(default_factory=list)

    def prepare_inputs(self, role: str, question: str) -> dict[str, Any]:
        self.asked.append((role, question))
        return {}

    def generate(self, inputs: Any, max_new_tokens: int, schema: Any = None, streamer: Any = None) -> str:
        self.schemas.append(schema)
        return self.answers[len(self.asked) - 1]


def scripted(*answers: str, **settings: Any) -> tuple[LanguageModel, Scripted]:
    model = Scripted(list(answers))
    tagger = LanguageModel(FixedCaptioner(), model="none", **settings)
    tagger._lazy_model._load = lambda: model
    return tagger, model


@pytest.mark.parametrize("family", ["mistral", "qwen2", "gemma"])
def test_chat_model_of_each_family_answers_in_json_that_becomes_tags(models: Path, clip: Video, family: str) -> None:
    tagger = LanguageModel(FixedCaptioner(), model=str(models / family), **SMALL)
    assert isinstance(tagger, Tagger)
    fractions: list[float] = []

    def note(fraction: float) -> None:
        fractions.append(fraction)

    tags = tagger.tag(clip, Tags(), note)
    assert tags.caption == "A kite flies over a hill."
    assert (tags.genres, tags.instruments, tags.moods) == (("ambient",), ("piano", "harp"), ("calm",))
    assert (tags.timbres, tags.tempo) == (("warm",), 72.0)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert [(info.folder, info.license) for info in tagger.weights] == [(models / family, "apache-2.0")]
    assert tagger.tag(clip, Tags()) == tags
    tagger.release()
    assert not tagger._lazy_model.loaded


def test_prompt_contains_the_role_with_and_without_a_system_turn(models: Path) -> None:
    prompts = {}
    for family in ("mistral", "qwen2", "gemma"):
        model = load_chat_model(models / family, "cpu", None)
        prompts[family] = model.tokenizer.decode(model.prepare_inputs("A composer.", "Why?")["input_ids"][0])
    turn = "<start_of_turn>user\nA composer.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n"
    assert prompts["gemma"] == f"<bos>{turn}"
    system = "<|im_start|>system\nA composer.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert prompts["qwen2"] == system
    assert prompts["mistral"] == "<s>[INST] A composer.\n\nWhy?[/INST]"


@pytest.mark.parametrize(("name", "answer"), [("prose", tiny.PROSE), ("nonsense", tiny.NONSENSE), ("empty", "")])
def test_schema_constrains_models_that_would_answer_otherwise(
    models: Path, clip: Video, caplog: pytest.LogCaptureFixture, name: str, answer: str
) -> None:
    model = load_chat_model(models / name, "cpu", None)
    inputs = model.prepare_inputs("A composer.", "Music?")
    assert model.generate(inputs, 80) == answer
    assert set(json.loads(model.generate(inputs, 800, tags_schema(with_caption=False)))) >= {*TAG_LISTS, "tempo"}
    with caplog.at_level(logging.WARNING, "v2m"):
        tags = LanguageModel(FixedCaptioner(), model=str(models / name), device="cpu", max_new_tokens=800).tag(
            clip, Tags()
        )
    assert all(getattr(tags, name) for name in TAG_LISTS)
    assert tags.tempo is not None
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["nonsense", "empty"])
def test_truncated_answer_gives_measured_tags_and_a_warning(
    models: Path, clip: Video, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    hints = Tags(tempo=90, instruments="Kazoo")
    with caplog.at_level(logging.WARNING, "v2m"):
        tags = LanguageModel(FixedCaptioner(), model=str(models / name), device="cpu", max_new_tokens=8).tag(
            clip, hints
        )
    assert tags == HeuristicTagger().tag(clip, hints)
    assert "answer could not be read ('{\"genres" in caplog.text


def test_prose_of_an_unconstrained_model_is_parsed(clip: Video) -> None:
    tagger, _ = scripted(tiny.PROSE)
    tags = tagger.tag(clip, Tags())
    assert (tags.genres, tags.instruments, tags.moods, tags.tempo) == (("ambient",), ("piano", "harp"), ("calm",), 72.0)


def test_empty_answer_gives_measured_tags_and_a_warning(clip: Video, caplog: pytest.LogCaptureFixture) -> None:
    tagger, _ = scripted(" ")
    with caplog.at_level(logging.WARNING, "v2m"):
        assert tagger.tag(clip, Tags()) == HeuristicTagger().tag(clip, Tags())
    assert "it is empty" in caplog.text


def test_question_contains_description_hints_and_answer_form(clip: Video) -> None:
    tagger, model = scripted(tiny.ANSWER, role="A composer.")
    assert tagger.tag(clip, Tags(negative="drums", tempo=90)).genres == ("ambient",)
    question = "The video shows: A kite flies over a hill.\nThis is decided already: tempo: 90 BPM; avoid: drums."
    assert model.asked == [(f"A composer. {answer_form(with_caption=False)}", question)]
    assert model.schemas == [tags_schema(with_caption=False)]


def test_merge_hints_puts_the_users_words_first_regardless_of_case() -> None:
    answer = Tags(genres="ambient, jazz", instruments="piano, harp, drums", moods="calm", tempo=72, key="C major")
    hints = Tags(genres="Jazz", instruments="PIANO,  Grand   piano", tempo=140, negative="Drums")
    tags = merge_hints(answer.overridden_by(hints), answer, hints)
    assert tags.genres == ("Jazz", "ambient")
    assert tags.instruments == ("PIANO", "Grand   piano", "harp")
    assert (tags.moods, tags.tempo, tags.key, tags.negative) == (("calm",), 140, "C major", ("Drums",))


def test_captioner_and_chat_model_are_never_in_memory_together(clip: Video) -> None:
    tagger, model = scripted(tiny.ANSWER, tiny.ANSWER)
    captioner = getattr(tagger.captioner, "plugin", None)
    assert isinstance(captioner, FixedCaptioner)
    loads: list[int] = []

    def load() -> Scripted:
        loads.append(captioner.released)
        return model

    tagger._lazy_model._load = load
    tagger.tag(clip, Tags())
    assert loads == [1]
    assert tagger._lazy_model.loaded
    original_tag = captioner.tag

    def tag(*arguments: Any) -> Tags:
        assert not tagger._lazy_model.loaded
        return original_tag(*arguments)

    captioner.tag = tag  # type: ignore[method-assign]
    tagger.tag(clip, Tags())


def test_description_is_the_users_caption_or_the_captioners_answer(clip: Video) -> None:
    tagger, model = scripted(tiny.ANSWER, tiny.ANSWER)
    tagger.tag(clip, Tags(caption="Two dogs."))
    assert model.asked[0][1].startswith("The video shows: Two dogs.\n")

    class DescribingCaptioner(FixedCaptioner):
        def describe(self, video: Video, question: str, progress: ProgressFn | None = None) -> str:
            return f"{question} A\nlong   tale."

    tagger.captioner = as_tagger(DescribingCaptioner())
    assert tagger.tag(clip, Tags()).caption == "Describe the scene in detail. A long tale."


def test_videollama_is_the_default_captioner_and_answers_the_question(v2b_weights: Path, clip: Video) -> None:
    asked: dict[str, Any] = {"prompt": "?", "lyrics_prompt": "?", "max_new_tokens": 90}
    captioner = VideoLLaMA3(str(v2b_weights / "tagger"), **asked, device="cpu", max_frames=2, pixels=4 * 784)
    assert captioner.describe(clip, "What is seen?").startswith('{"caption": "A kite flies over a hill."')
    assert isinstance(LanguageModel().captioner, VideoLLaMA3)


def test_lyrics_are_written_for_vocals_without_lyrics(clip: Video) -> None:
    song = "[verse]\nOver the hill we fly\nUnder the open sky"
    tagger, model = scripted(tiny.ANSWER, song)
    assert tagger.tag(clip, Tags(vocals=True)).lyrics == song
    assert "Write the lyrics" in model.asked[1][1]
    assert model.schemas[1] is None
    tagger, model = scripted(tiny.ANSWER)
    assert tagger.tag(clip, Tags(vocals=True, lyrics="la la")).lyrics == "la la"


def test_four_bit_weights_are_stored_as_uint8(models: Path) -> None:
    model = load_chat_model(models / "mistral", "cpu", 4).model
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8


def test_short_model_names_resolve_to_repositories(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(models / "mistral", tmp_path / "Mistral-7B-Instruct-v0.3")
    shutil.copytree(models / "gemma", tmp_path / "google" / "gemma-7b-it")
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    for name, repository in (
        ("Mistral-7B", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("gemma-7b", "google/gemma-7b-it"),
    ):
        tagger = LanguageModel(FixedCaptioner(), model=name)
        tagger.prepare()
        assert [info.name for info in tagger.weights] == [repository]


def test_load_rejects_folders_without_a_usable_chat_model(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def corrupt_copy(name: str, change: Any) -> str:
        folder = Path(shutil.copytree(models / "qwen2", tmp_path / name))
        change(folder)
        return str(folder)

    def settings(file: str, **change: Any) -> Any:
        def apply(folder: Path) -> None:
            path = folder / file
            path.write_text(json.dumps(json.loads(path.read_text()) | change))

        return apply

    def mute(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()

    def cut(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])

    def garble(folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{")

    llama = yue_lm.write(tmp_path / "llama", 300, hidden=16, layers=1, heads=2, kv_heads=1, ffn=32)
    (llama / "tokenizer_config.json").write_text("{}")
    for folder, message in [
        (corrupt_copy("t5", settings("config.json", model_type="t5")), "model_type 't5'"),
        (corrupt_copy("own", settings("config.json", model_type="mine")), "model_type 'mine'"),
        (corrupt_copy("mute", mute), "no chat template"),
        (corrupt_copy("cut", cut), "safetensors"),
        (corrupt_copy("garbled", garble), "tokenizer"),
        (str(llama), "lacks tokenizer"),
    ]:
        with pytest.raises(DependencyError, match=message) as error:
            LanguageModel(FixedCaptioner(), model=folder)._load()
        assert "\n" not in str(error.value)


def test_prompt_beyond_the_context_length_is_a_usage_error(models: Path) -> None:
    model = load_chat_model(models / "qwen2", "cpu", None)
    with pytest.raises(UsageError, match=r"more than the model can read: give fewer `tagger\.max_new_tokens`"):
        model.generate(model.prepare_inputs("A composer.", "Hello?"), 9000)


def test_constructor_reports_all_invalid_settings_at_once() -> None:
    with pytest.raises(UsageError, match=r"role must not be empty.*max_new_tokens"):
        LanguageModel(FixedCaptioner(), role=" ", max_new_tokens=0)


def test_command_line_accepts_a_captioner_by_class_path(
    models: Path, tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("v2m.pretrained.weights._announced", set())  # each is shown once
    clip = Path(shutil.copy(media / "cuts.mp4", tmp_path))
    flags = ["--tagger", "v2m.taggers.language_model.LanguageModel", "--tagger.model", str(models / "gemma")]
    flags += ["--tagger.captioner", "v2m.taggers.heuristic.HeuristicTagger", "--tagger.max_new_tokens", "80"]
    assert main([str(clip), *flags, "--tags.instruments", "Harp,Flute", "--quiet"]) == 0
    record = json.loads(clip.with_name("cuts.v2m.json").read_text())
    assert record["tags"]["instruments"] == ["Harp", "Flute", "piano"]
    assert (record["tags"]["genres"], record["tags"]["tempo"]) == (["ambient"], 72.0)
    assert record["tags"]["caption"].endswith("cuts")
    assert [info["license"] for info in record["weights"]] == ["apache-2.0"]
    assert record["features"]["cuts"]
    assert "license: apache-2.0" in capsys.readouterr().err
