"""Tags and lyrics in answers of language models: JSON, prose, and what must not be read."""

from __future__ import annotations

import random
import string
import time
from typing import Any

import pytest

from v2m.core.types import TEMPO_RANGE, Tags
from v2m.taggers.llm_answers import (
    MAX_LINE_LENGTH,
    MAX_SECTION_LINES,
    MAX_WORDS,
    TAG_LISTS,
    answer_form,
    parse_lyrics,
    parse_tags,
    tags_schema,
)

CALM = {"genres": ("ambient", "cinematic"), "instruments": ("piano", "strings"), "moods": ("calm",)}
SONG = "[verse]\nOver the hill\nUnder the sky"
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
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_parse_tags_reads_the_same_tags_from_every_shape(text: str) -> None:
    tags = parse_tags(text)
    assert {name: getattr(tags, name) for name in CALM} == CALM


def test_parse_tags_sorts_loose_words_into_fields() -> None:
    tags = parse_tags("cinematic piano calm warm ambient")
    assert (tags.genres, tags.instruments) == (("cinematic", "ambient"), ("piano",))
    assert (tags.moods, tags.timbres) == (("calm",), ("warm",))


@pytest.mark.parametrize(
    ("text", "tempo"),
    [
        ("Tempo: 80-100 BPM", 90),
        ("Tempo: 92.5", 92.5),
        ("A slow piece at around 72 BPM.", 72),
        ("Tempo: Andante", 90),
        ("Tempo: very fast", 165),
        ('{"tempo": "slow"}', 70),
        ('{"tempo": "80 to 100"}', 90),
        ('{"tempo": {"bpm": 110}}', 110),
        ("Tempo: 1000 BPM", None),
        ("Tempo: 5 BPM", None),
        ("A man walks fast past 120 trees.", None),
    ],
)
def test_parse_tags_turns_a_tempo_into_a_number(text: str, tempo: float | None) -> None:
    assert parse_tags(text).tempo == tempo


def test_parse_tags_leaves_out_negated_words() -> None:
    tags = parse_tags("Instruments: piano, no drums, without bass, soft vocals\nMood: not sad, calm")
    assert tags.instruments == ("piano",)
    assert tags.moods == ("calm",)
    assert parse_tags("A piano piece of music without drums, guitar or bass, with warm strings.").instruments == (
        "piano",
        "strings",
    )


def test_parse_tags_takes_no_tags_from_the_caption() -> None:
    tags = parse_tags("A guitar leans on a dark wall in the bright sun. \nGenre: jazz")
    assert tags.caption.startswith("A guitar leans")
    assert (tags.genres, tags.instruments, tags.moods, tags.timbres) == (("jazz",), (), (), ())


def test_parse_tags_reads_key_and_caption() -> None:
    tags = parse_tags("Caption: A kite flies.\nGenre: folk\nKey: F# minor")
    assert (tags.caption, tags.key) == ("A kite flies.", "F# minor")
    assert parse_tags('{"caption": "A kite flies.", "genre": "folk", "key": "Bb major"}').key == "Bb major"


def test_parse_tags_keeps_words_to_avoid_apart() -> None:
    tags = parse_tags('{"genre": "jazz", "avoid": ["drums", "no vocals"]}')
    assert tags.negative == ("drums", "vocals")
    assert not tags.instruments
    assert parse_tags("Genre: jazz\nAvoid: drums").instruments == ()


@pytest.mark.parametrize("text", ["", " \n\t", "asdf qwer zxcv", "<think>rock, metal, never", "{}", "[[[", "::::"])
def test_parse_tags_of_an_empty_answer_are_empty(text: str) -> None:
    assert parse_tags(text) == Tags()


def test_parse_tags_takes_unknown_words_from_json_but_not_from_prose() -> None:
    assert parse_tags('{"instruments": ["cristal baschet", "Pianos"]}').instruments == ("cristal baschet", "piano")
    assert parse_tags("piano, cristal baschet, calm").instruments == ("piano",)


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
def test_parse_tags_reads_any_monster_without_quadratic_cost(text: str) -> None:
    begun = time.process_time()
    valid(parse_tags(text))
    parse_lyrics(text)
    assert time.process_time() - begun < 30, "a quadratic cost takes minutes, a linear one a part of a second"


def valid(tags: Tags) -> None:
    for name, most in MAX_WORDS.items():
        words = getattr(tags, name)
        assert len(words) <= most
        assert len({word.casefold() for word in words}) == len(words)
        assert all(word.strip() == word and word.isprintable() for word in words)
    assert tags.tempo is None or TEMPO_RANGE[0] <= tags.tempo <= TEMPO_RANGE[1]
    assert len(tags.caption) <= 302
    assert not tags.vocals


def test_parse_tags_of_any_string_are_valid() -> None:
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
        valid(parse_tags(text))
        assert "\x00" not in parse_lyrics(text)


def test_parse_lyrics_drops_what_is_said_around_them() -> None:
    said = (
        "Sure! Here are the lyrics:\n\n**Title: Kite**\n\n[Verse 1]\nOver the hill we fly\n- Painting the sky\n\n"
        "**Chorus:**\nHold on to me\n(oh oh)\nHold on and see\n\n(Instrumental break)\n\nI hope you like it!"
    )
    assert parse_lyrics(said) == (
        "[verse]\nOver the hill we fly\nPainting the sky\n\n[chorus]\nHold on to me\nHold on and see"
    )


def test_parse_lyrics_names_paragraphs_in_turn_without_headers() -> None:
    assert parse_lyrics("one a\ntwo b\n\nthree c\nfour d") == "[verse]\none a\ntwo b\n\n[chorus]\nthree c\nfour d"


@pytest.mark.parametrize("text", ["", "I cannot write that.", "[verse]\nla\n\n" * 50, "[verse]\n[chorus]"])
def test_parse_lyrics_of_what_cannot_be_sung_are_empty(text: str) -> None:
    assert parse_lyrics(text) == ""


def test_parse_tags_takes_no_more_words_than_a_generator_can_use() -> None:
    assert parse_tags("Genre: jazz, rock, folk, funk, ambient, techno").genres == ("jazz", "rock", "folk", "funk")


def test_parse_tags_takes_the_first_of_two_tempi() -> None:
    assert parse_tags("Tempo: 90 BPM\nTempo: 140 BPM").tempo == 90


def test_parse_tags_leaves_out_placeholders() -> None:
    assert parse_tags("Genre: jazz, various, unknown\nInstruments: piano, other").genres == ("jazz",)
    assert parse_tags('{"genre": ["jazz", "various", "unknown"]}').genres == ("jazz",)


def test_parse_tags_takes_no_unknown_line_after_a_label() -> None:
    assert parse_tags("Instruments: piano\nfloating slowly\nMood: calm").instruments == ("piano",)


def test_parse_tags_takes_no_caption_from_a_polite_opening() -> None:
    assert parse_tags("Sure thing my good friend today.\nGenre: jazz").caption == ""


def test_parse_lyrics_drops_what_stands_before_the_first_header() -> None:
    assert parse_lyrics(f"A quiet one for you\n\n{SONG}") == SONG


def test_parse_lyrics_keeps_no_more_lines_than_can_be_sung() -> None:
    lines = [f"line {'la ' * n}" for n in range(1, 13)]
    assert parse_lyrics("[verse]\n" + "\n".join(lines)).splitlines()[1:] == [
        line.strip() for line in lines[:MAX_SECTION_LINES]
    ]


def test_parse_lyrics_keeps_a_repeated_section_once() -> None:
    chorus = "[chorus]\nHold on\nHold me"
    assert parse_lyrics(f"{SONG}\n\n{chorus}\n\n{chorus}\n\n{chorus}") == f"{SONG}\n\n{chorus}"


def test_parse_lyrics_refuses_one_line_over_and_over() -> None:
    assert parse_lyrics("[verse]\nla la\nla la\nLa La") == ""
    assert parse_lyrics("[verse]\nla la\nlo lo") == "[verse]\nla la\nlo lo"


def test_parse_lyrics_drops_prose_and_announcements() -> None:
    assert parse_lyrics(f"{SONG}\nAnd then they say:\n{'word ' * MAX_LINE_LENGTH}") == SONG


def test_parse_lyrics_makes_paragraphs_verse_and_chorus_in_turn() -> None:
    assert parse_lyrics("Over the hill\nUnder the sky\n\nHold on\nHold me") == f"{SONG}\n\n[chorus]\nHold on\nHold me"


def test_answer_form_names_every_required_field_of_the_schema_in_its_order() -> None:
    for with_caption in (True, False):
        form = answer_form(with_caption=with_caption)
        places = [form.index(f'"{name}"') for name in tags_schema(with_caption=with_caption)["required"]]
        assert places == sorted(places)


def test_tags_schema_asks_for_no_more_than_is_read() -> None:
    lists = tags_schema(with_caption=True)["properties"]
    assert all(lists[name]["maxItems"] <= most for name, most in MAX_WORDS.items())
    assert sum(fewest for fewest, _, _ in TAG_LISTS.values()) >= 5  # as few as a generator can do with
