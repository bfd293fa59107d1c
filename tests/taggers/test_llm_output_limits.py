"""What an answer says too much of, twice, or without meaning it."""

from __future__ import annotations

from v2m.taggers.llm_output import parse


def test_no_more_words_are_taken_than_a_generator_can_use() -> None:
    assert parse("Genre: jazz, rock, folk, funk, ambient, techno").genres == ("jazz", "rock", "folk", "funk")


def test_of_two_tempi_the_first_is_taken() -> None:
    assert parse("Tempo: 90 BPM\nTempo: 140 BPM").tempo == 90


def test_words_for_nothing_are_no_tags() -> None:
    assert parse("Genre: jazz, various, unknown\nInstruments: piano, other").genres == ("jazz",)


def test_a_label_with_its_value_is_closed() -> None:
    assert parse("Instruments: piano\nfloating slowly\nMood: calm").instruments == ("piano",)


def test_a_polite_opening_is_no_caption() -> None:
    assert parse("Sure thing my good friend today.\nGenre: jazz").caption == ""
