"""What chat models answer, in the shapes they answer it in."""

from __future__ import annotations

import random
import string
import time
from typing import Any

import pytest

from v2m.core.types import TEMPO_RANGE, Tags
from v2m.taggers import lyrics
from v2m.taggers.llm_output import MOST, parse

CALM = {"genres": ("ambient", "cinematic"), "instruments": ("piano", "strings"), "moods": ("calm",)}
SHAPES = {
    "json": '{"genre": ["ambient", "cinematic"], "instruments": "piano, strings", "mood": {"main": "calm"}}',
    "fenced json with comments": '```json\n{"genre": ["ambient", "cinematic",], // slow\n"mood": "calm",\n'
    '"instruments": [{"name": "piano", "role": "lead"}, {"name": "strings"}],}\n```',
    "cut json": '{"genre": ["ambient", "cinematic"], "mood": ["calm"], "instruments": ["piano", "strings"], "tex',
    "lines": "Genre: ambient, cinematic\nInstruments: piano and strings\nMood: calm",
    "bold": "**Genre:** Ambient / Cinematic\n**Instruments**: Piano, Strings\n- **Mood:** *calm*",
    "numbered": "1. Suggested genre: ambient; cinematic\n2. Instruments:\n   - piano\n   - strings\n3. Mood: calm.",
    "headings": "### Genre\nambient, cinematic\n\n### Instruments\n* piano\n* strings\n\n### Mood\ncalm\n\nI hope so!",
    "table": "| Genre | ambient, cinematic |\n|---|---|\n| Instruments | piano, strings |\n| Mood | calm |",
    "one line": "Genre: ambient, cinematic; Mood: calm; Instruments: piano, strings.",
    "one line of blanks": "Genre: ambient, cinematic Mood: calm Instruments: piano, strings",
    "words": "ambient cinematic piano strings calm",
    "commas": "Sure! Here are the tags: ambient, cinematic, piano, strings, calm.",
    "semicolons": "ambient; cinematic; piano; strings; calm",
    "hashes": "#ambient #cinematic #piano #strings #calm",
    "prose": "The video shows a dark red car. An ambient cinematic piece with piano and strings, in a calm mood.",
    "thoughts": "<think>rock? no, metal drums</think>ambient, cinematic, piano, strings, calm",
    "loop": "ambient cinematic piano strings calm " * 200,
    "chinese": "风格：氛围音乐，电影感；乐器：钢琴、弦乐；情绪：平静",
    "japanese": "ジャンル：アンビエント、シネマティック\n楽器：ピアノ、ストリングス\nムード：穏やか",
    "german": "Stil: Ambient, Filmmusik\nInstrumente: Klavier und Streicher\nStimmung: ruhig",
    "french": "Genre : ambiant, cinématographique\nInstruments : piano et cordes\nAmbiance : calme",
    "spanish": "Género: ambiental, cinematográfico\nInstrumentos: piano y cuerdas\nEstado de ánimo: tranquilo",
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_the_same_tags_are_read_from_every_shape(text: str) -> None:
    tags = parse(text)
    assert {name: getattr(tags, name) for name in CALM} == CALM


def test_the_original_prompts_answer_is_sorted_into_fields() -> None:
    tags = parse("cinematic piano calm warm ambient")
    assert (tags.genres, tags.instruments) == (("cinematic", "ambient"), ("piano",))
    assert (tags.moods, tags.timbres) == (("calm",), ("warm",))


@pytest.mark.parametrize(
    ("text", "tempo"),
    [
        ("Tempo: 80-100 BPM", 90),
        ("Tempo: 92.5", 92.5),
        ("速度：80BPM", 80),
        ("A slow piece at around 72 BPM.", 72),
        ("Tempo: Andante", 90),
        ("Tempo: very fast", 165),
        ("テンポ：ゆっくり", 70),
        ("Tempo: 70 à 80 BPM", 75),
        ('{"tempo": {"bpm": 110}}', 110),
        ("Tempo: 1000 BPM", None),
        ("Tempo: 5 BPM", None),
        ("A man walks fast past 120 trees.", None),
    ],
)
def test_a_tempo_becomes_a_number(text: str, tempo: float | None) -> None:
    assert parse(text).tempo == tempo


def test_what_is_denied_is_not_an_instrument() -> None:
    tags = parse("Instruments: piano, no drums, without bass, soft vocals\nMood: not sad, calm")
    assert tags.instruments == ("piano",)
    assert tags.moods == ("calm",)
    assert parse("A piano piece of music without drums, guitar or bass, with warm strings.").instruments == (
        "piano",
        "strings",
    )


def test_words_of_the_caption_are_no_tags() -> None:
    tags = parse("A guitar leans on a dark wall in the bright sun. \nGenre: jazz")
    assert tags.caption.startswith("A guitar leans")
    assert (tags.genres, tags.instruments, tags.moods, tags.timbres) == (("jazz",), (), (), ())
    mixed = parse("The video shows a dark, quiet street, so a slow jazz piece with saxophone would fit.")
    assert (mixed.genres, mixed.instruments, mixed.moods) == (("jazz",), ("saxophone",), ())


def test_key_and_caption_are_read() -> None:
    tags = parse("Caption: A kite flies.\nGenre: folk\nKey: F# minor")
    assert (tags.caption, tags.key) == ("A kite flies.", "F# minor")
    assert parse("Tonart: a-Moll\nStil: Jazz").key == "A minor"


def test_what_is_to_be_avoided_is_kept_apart() -> None:
    tags = parse("Genre: jazz\nAvoid: drums, no vocals")
    assert tags.negative == ("drums", "vocals")
    assert not tags.instruments


@pytest.mark.parametrize("text", ["", " \n\t", "asdf qwer zxcv", "<think>rock, metal, never", "{}", "[[[", "::::"])
def test_an_answer_that_says_nothing_gives_empty_tags(text: str) -> None:
    assert parse(text) == Tags()


def test_words_under_a_label_are_taken_though_unknown_and_others_are_not() -> None:
    assert parse("Instruments: cristal baschet, piano").instruments == ("cristal baschet", "piano")
    assert parse("piano, cristal baschet, calm").instruments == ("piano",)


MONSTERS = {
    "one token": "a" * 1_000_000,
    "digits": "9" * 1_000_000,
    "brackets": "[" * 500_000,
    "braces": '{"genre":' * 100_000,
    "quotes": '"\\' * 300_000,
    "comments": "{/*" * 300_000,
    "colons": "genre:" * 100_000,
    "commas": ", " * 300_000,
    "hyphens": "- " * 300_000,
    "parentheses": "(" * 500_000,
    "tempo": "tempo: " + "80-" * 200_000,
    "no": "no piano or " * 50_000,
    "lines": "\n".join(["Mood:"] * 100_000),
    "kana": "ピアノ" * 200_000,
    "ligature": "\ufdfa" * 300_000,
    "thoughts": "<think>" * 100_000,
}


@pytest.mark.parametrize("text", MONSTERS.values(), ids=MONSTERS.keys())
def test_no_monster_takes_a_second(text: str) -> None:
    begun = time.process_time()
    valid(parse(text))
    lyrics.clean(text)
    assert time.process_time() - begun < 1.0


def valid(tags: Tags) -> None:
    for name, most in MOST.items():
        found = getattr(tags, name)
        assert len(found) <= most
        assert len({word.casefold() for word in found}) == len(found)
        assert all(word.strip() == word and word.isprintable() for word in found)
    assert tags.tempo is None or TEMPO_RANGE[0] <= tags.tempo <= TEMPO_RANGE[1]
    assert len(tags.caption) <= 302
    assert not tags.vocals


def test_any_string_gives_valid_tags() -> None:
    chance = random.Random(0)
    pieces: list[Any] = [
        *(
            "Genre:",
            "Mood",
            "{",
            "}",
            "[",
            "]",
            '"',
            ",",
            ":",
            "：",
            "、",
            "\n",
            "\x00",
            "\u202e",
            "\ud800",
            "- ",
            "1.",
        ),
        *(
            "piano",
            "no",
            "calm",
            "bpm",
            "80-",
            "1e9",
            "C#",
            "minor",
            "```",
            "<think>",
            "</think>",
            "tempo",
            "音色",
            "ー",
        ),
        *string.printable,
    ]
    for _ in range(400):
        text = "".join(chance.choice(pieces) + chance.choice(["", " "]) for _ in range(chance.randrange(60)))
        valid(parse(text))
        assert "\x00" not in lyrics.clean(text)


def test_lyrics_lose_what_is_said_around_them() -> None:
    said = (
        "Sure! Here are the lyrics:\n\n**Title: Kite**\n\n[Verse 1]\nOver the hill we fly\n- Painting the sky\n\n"
        "**Chorus:**\nHold on to me\n(oh oh)\nHold on and see\n\n(Instrumental break)\n\nI hope you like it!"
    )
    assert lyrics.clean(said) == (
        "[verse]\nOver the hill we fly\nPainting the sky\n\n[chorus]\nHold on to me\nHold on and see"
    )


def test_lyrics_without_headers_get_them_in_turn() -> None:
    assert lyrics.clean("one a\ntwo b\n\nthree c\nfour d") == "[verse]\none a\ntwo b\n\n[chorus]\nthree c\nfour d"


@pytest.mark.parametrize("text", ["", "I cannot write that.", "[verse]\nla\n\n" * 50, "[verse]\n[chorus]"])
def test_what_cannot_be_sung_is_no_lyrics(text: str) -> None:
    assert lyrics.clean(text) == ""
