"""Prompt token ids, as encoded by the published tokenizer.model, and the genre line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor

from tests.fixtures.tiny import yue_tokenizer
from v2m.core.types import Tags
from v2m.generators.yue.prompt import LyricsSection, PromptEncoder, genre_line, head_text, instrumental_sections
from v2m.generators.yue.tokenizer import Tokenizer

SONG = Tags(genres=["pop"], instruments=["piano"], moods=["happy"], timbres=["warm"], vocals=True)
SCORE = Tags(genres=["cinematic"], instruments=["piano", "strings"], moods=["calm"], timbres=["warm"])
WORDS = LyricsSection("verse", "Staring at the sunset, colors paint the sky")
START = [518, 2962, 29918, 974, 29918, 28192, 29962]
# Generate music from the given lyrics segment by segment.\n[Genre]
INSTRUCTION = [3251, 403, 4696, 515, 278, 2183, 26627, 1199, 10768, 491, 10768, 29889, 13, 29961, 15462, 276, 29962]
SUNSET = [29962, 13, 855, 4362, 472, 278, 6575, 842, 29892, 11955, 10675, 278, 14744, 13, 13]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yue_tokenizer.write(tmp_path_factory.mktemp("yue") / "tokenizer.model")


@pytest.fixture(scope="module")
def prompt(path: Path) -> PromptEncoder:
    return PromptEncoder(Tokenizer(path))


def test_head_of_a_song_has_the_published_ids(prompt: PromptEncoder) -> None:
    assert prompt.head(SONG, [WORDS]) == [*INSTRUCTION, 1835, 11914, 9796, 14294, 20982, 13, 29961, 3901, *SUNSET]


def test_head_of_an_instrumental_has_the_published_ids(prompt: PromptEncoder) -> None:
    """A section without words leaves three newlines in a row, and a fourth that joins it to the next."""
    tags = [11395, 284, 4670, 19217, 11914, 6031, 21732, 14294, 13]
    verse, chorus, outro = [29961, 3901, 29962], [29961, 8420, 375, 29962], [29961, 449, 307, 29962]
    gap = [13] * 3
    expected = [*INSTRUCTION, *tags, *verse, *gap, 13, *chorus, *gap, 13, *outro, *gap]
    assert prompt.head(SCORE, instrumental_sections(3)) == expected


def test_section_ids_contain_text_and_special_tokens(prompt: PromptEncoder) -> None:
    assert prompt.section(WORDS) == [*START, 518, 3901, *SUNSET, 32001, 32016]
    assert prompt.section(LyricsSection("chorus")) == [*START, 518, 8420, 375, 29962, 13, 13, 13, 32001, 32016]
    assert prompt.end_of_segment == [518, 355, 29918, 974, 29918, 28192, 29962]


BEGIN, END = [518, 2962, 29918, 974, 29918, 5679, 29962], [518, 355, 29918, 974, 29918, 5679, 29962]


def test_reference_ids_are_delimited_and_appended_to_the_head(prompt: PromptEncoder) -> None:
    """One track in its order; two of them by turns, the voice first."""
    one, two = torch.tensor([[0, 5, 1023]]), torch.tensor([[1, 2], [10, 20]])
    assert prompt.reference(one) == [*BEGIN, 32001, 32016, 45334, 45339, 46357, 32002, *END]
    assert prompt.reference(two) == [*BEGIN, 32001, 32016, 45335, 45344, 45336, 45354, 32002, *END]
    assert prompt.head(SONG, [WORDS], two) == prompt.head(SONG, [WORDS]) + prompt.reference(two)


def test_head_text_lists_all_sections() -> None:
    assert head_text(SONG, [WORDS, LyricsSection("chorus", "La\nla")]) == (
        "Generate music from the given lyrics segment by segment.\n"
        "[Genre] pop piano happy warm vocal\n"
        "[verse]\nStaring at the sunset, colors paint the sky\n\n\n"
        "[chorus]\nLa\nla\n\n"
    )


VOICES = ["vocals", "female voice", "Choir voices", "rap", "singing", "a cappella", "male-vocals", "人声", "soprano"]


@pytest.mark.parametrize("word", VOICES)
@pytest.mark.parametrize("field", ["genres", "instruments", "moods", "timbres"])
def test_instrumental_genre_line_drops_vocal_tags(word: str, field: str) -> None:
    assert genre_line(Tags(**{field: [word, "bright"]})) == "instrumental bright"  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("tag", "kept"),
    [
        ("vocal jazz", "jazz"),
        ("choral ambient", "ambient"),
        ("hip-hop/rap", ""),
        ("trap", "trap"),
        ("soprano saxophone", "soprano saxophone"),
        ("baritone guitar", "baritone guitar"),
        ("using strings", "using strings"),
        ("lyrical piano", "lyrical piano"),
        ("enchanting", "enchanting"),
        ("instrumental", ""),
    ],
)
def test_instrumental_genre_line_keeps_the_non_vocal_part_of_tags(tag: str, kept: str) -> None:
    assert genre_line(Tags(genres=[tag])) == f"instrumental {kept}".strip()


def test_vocal_genre_line_contains_a_vocal_tag() -> None:
    assert genre_line(Tags(genres=["rock"], vocals=True)) == "rock vocal"
    assert genre_line(Tags(genres=["rock"], instruments=["female vocals"], vocals=True)) == "rock female vocals"
    assert genre_line(Tags(timbres=["airy vocal", "bright"], vocals=True)) == "airy vocal bright vocal"


def test_special_characters_are_removed_from_tags() -> None:
    tags = Tags(genres=["lo-fi\n[verse] (chill)", "R&B", "80's", "<SOA>"], moods=["synth_lead;", "电子"])
    assert genre_line(tags) == "instrumental lo-fi verse chill R&B 80's SOA synth lead 电子"


def test_negative_tags_are_removed_from_the_genre_line() -> None:
    tags = Tags(
        genres=["rock", "hard rock", "rockabilly"],
        instruments=["electric Guitar", "piano"],
        moods=["calm"],
        negative=["guitar", "Rock"],
    )
    assert genre_line(tags) == "instrumental rockabilly piano calm"


@pytest.mark.parametrize(("tempo", "word"), [(60, " slow"), (100, ""), (150, " fast-paced"), (None, "")])
def test_tempo_becomes_a_word_and_key_is_omitted(tempo: float | None, word: str) -> None:
    assert genre_line(Tags(moods=["calm"], tempo=tempo, key="A minor")) == f"instrumental calm{word}"


def test_tiny_tokenizer_covers_the_test_texts(path: Path) -> None:
    """Else the ids above would prove nothing: none is a byte but the newline's."""
    pieces = SentencePieceProcessor(model_file=str(path))
    prompt = PromptEncoder(Tokenizer(path))
    for ids in (prompt.head(SONG, [WORDS]), prompt.head(SCORE, instrumental_sections(3))):
        assert {pieces.IdToPiece(item) for item in ids if item < 259} == {"<0x0A>"}
