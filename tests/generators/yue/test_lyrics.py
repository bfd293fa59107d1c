"""Parsing of lyrics with section headers."""

from __future__ import annotations

import pytest

from v2m.core.errors import UsageError
from v2m.generators.yue.prompt import LABELS, LyricsSection, instrumental_sections, parse_lyrics


def test_sections_keep_their_order_and_lines() -> None:
    text = "[verse]\nOne line\n\n  Another line  \n\n[chorus]\nLa la\n\n[verse]\nMore\n"
    assert parse_lyrics(text) == [
        LyricsSection("verse", "One line\n\nAnother line"),
        LyricsSection("chorus", "La la"),
        LyricsSection("verse", "More"),
    ]


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("[Verse 2]", "verse"),
        ("[VERSE]", "verse"),
        ("  [ chorus ]  ", "chorus"),
        ("[pre-chorus]", "verse"),
        ("[Pre Chorus 1]", "verse"),
        ("[pre_chorus]", "verse"),
        ("[hook]", "chorus"),
        ("[Interlude]", "bridge"),
        ("[inst]", "bridge"),
        ("[Solo]", "bridge"),
        ("[guitar solo]", "bridge"),
        ("[Intro]", "intro"),
        ("[Outro #2]", "outro"),
        ("[verse ii]", "verse"),
        ("[Verse 1: Anna]", "verse"),
        ("【verse】", "verse"),
        ("［Chorus］", "chorus"),
    ],
)
def test_header_is_mapped_to_a_supported_label(header: str, label: str) -> None:
    assert parse_lyrics(f"{header}\nwords") == [LyricsSection(label, "words")]
    assert label in LABELS


def test_text_after_a_header_on_the_same_line_is_lyrics() -> None:
    assert parse_lyrics("[verse] One\nTwo") == [LyricsSection("verse", "One\nTwo")]


def test_brackets_inside_a_line_become_parentheses() -> None:
    """And turns round: square ones are for headers."""
    assert parse_lyrics("[verse]\nOh [softly] my\n[unclosed\nend") == [
        LyricsSection("verse", "Oh (softly) my\n(unclosed\nend")
    ]


def test_text_before_the_first_header_is_a_verse() -> None:
    assert parse_lyrics("\n\nOh my\nDear\n[chorus]\nLa") == [
        LyricsSection("verse", "Oh my\nDear"),
        LyricsSection("chorus", "La"),
    ]
    assert parse_lyrics("Just words") == [LyricsSection("verse", "Just words")]
    assert parse_lyrics("\n \n[chorus]\nLa") == [LyricsSection("chorus", "La")]


def test_section_without_lyrics_is_allowed() -> None:
    assert parse_lyrics("[intro]\n[verse]\nLa\n[outro]") == [
        LyricsSection("intro"),
        LyricsSection("verse", "La"),
        LyricsSection("outro"),
    ]


def test_line_endings_bom_and_control_characters_are_normalized() -> None:
    plain = "[verse]\nOh my\nDear\n\n[chorus]\nLa"
    assert (
        parse_lyrics("\ufeff" + plain.replace("\n", "\r\n"))
        == parse_lyrics(plain)
        == parse_lyrics(plain.replace("\n", "\r"))
    )
    assert parse_lyrics("[verse]\nOh\tmy\x00 dear") == [LyricsSection("verse", "Oh my  dear")]


def test_long_lyrics_are_not_truncated() -> None:
    words = "\n".join(f"line {k}" for k in range(5000))
    assert parse_lyrics(f"[verse]\n{words}") == [LyricsSection("verse", words)]


@pytest.mark.parametrize("text", ["", " \r\n\t\n", "\ufeff", "[verse]\n\n[chorus]\n"])
def test_lyrics_without_text_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="the lyrics hold no words"):
        parse_lyrics(text)


def test_unknown_headers_are_reported_with_their_line_numbers() -> None:
    with pytest.raises(UsageError) as caught:
        parse_lyrics("[verse]\nLa\n[x2]\nLa\n[" + "z" * 300 + "]\n[]")
    message = str(caught.value)
    assert "line 3 has [x2]; line 5 has [zzzz" in message
    assert "line 6 has []" in message
    assert "write one of [verse], [chorus], [bridge], [intro], [outro], [pre-chorus]" in message
    assert len(message) < 300
    assert "\n" not in message


@pytest.mark.parametrize(
    ("count", "labels"),
    [(1, "verse"), (2, "verse chorus"), (3, "verse chorus outro"), (5, "verse chorus verse chorus outro")],
)
def test_instrumental_sections_start_with_verse_and_end_with_outro(count: int, labels: str) -> None:
    assert instrumental_sections(count) == [LyricsSection(label) for label in labels.split()]
