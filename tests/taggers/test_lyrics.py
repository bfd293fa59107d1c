"""A song comes out of a chat model's answer, and nothing else does."""

from __future__ import annotations

from v2m.taggers.lyrics import LINES, WIDTH, clean

SONG = "[verse]\nOver the hill\nUnder the sky"


def test_what_stands_before_the_first_header_is_no_song() -> None:
    assert clean(f"A quiet one for you\n\n{SONG}") == SONG


def test_a_section_has_no_more_lines_than_can_be_sung() -> None:
    lines = [f"line {'la ' * n}" for n in range(1, 13)]
    assert clean("[verse]\n" + "\n".join(lines)).splitlines()[1:] == [line.strip() for line in lines[:LINES]]


def test_a_section_repeated_in_a_row_is_kept_once() -> None:
    chorus = "[chorus]\nHold on\nHold me"
    assert clean(f"{SONG}\n\n{chorus}\n\n{chorus}\n\n{chorus}") == f"{SONG}\n\n{chorus}"


def test_one_line_over_and_over_is_no_song() -> None:
    assert clean("[verse]\nla la\nla la\nLa La") == ""
    assert clean("[verse]\nla la\nlo lo") == "[verse]\nla la\nlo lo"


def test_prose_and_announcements_are_not_sung() -> None:
    assert clean(f"{SONG}\nAnd then they say:\n{'word ' * WIDTH}") == SONG


def test_paragraphs_without_headers_are_verse_and_chorus_in_turn() -> None:
    assert clean("Over the hill\nUnder the sky\n\nHold on\nHold me") == f"{SONG}\n\n[chorus]\nHold on\nHold me"
