"""Genres and instruments that were asked for, among the tags that musicnn's networks give."""

from __future__ import annotations

import pytest

from v2m.core.types import Tags
from v2m.evaluation.embedders.musicnn import TAGS
from v2m.evaluation.tag_recall import GENRE_TAGS, INSTRUMENT_TAGS, expected_tags, tag_recall, top_tags
from v2m.sketch.styles import STYLES
from v2m.taggers.heuristic import GENRES


def test_expected_tags_are_tags_of_the_networks() -> None:
    known = {tag for tags in TAGS.values() for tag in tags.split(", ")}
    assert all(len(tags.split(", ")) == 50 for tags in TAGS.values())
    expected = {tag for table in (GENRE_TAGS, INSTRUMENT_TAGS) for words in table.values() for tag in words.split(", ")}
    assert expected <= known


def test_every_style_and_measured_genre_has_expected_tags_of_its_own() -> None:
    assert all(expected_tags(name, GENRE_TAGS) for name in (*STYLES, *GENRES))
    assert len({expected_tags(name, GENRE_TAGS) for name in STYLES}) == len(STYLES)


@pytest.mark.parametrize(
    ("word", "tag", "other"),
    [
        ("indie folk", "folk", "rock"),
        ("Hip Hop", "Hip-Hop", "rock"),
        ("synth pop", "synth", "folk"),
        ("harpsichord concerto", "", "harp"),
        ("R&B", "rnb", "funk"),
    ],
)
def test_genres_are_matched_by_whole_words(word: str, tag: str, other: str) -> None:
    assert (tag in expected_tags(word, GENRE_TAGS)) == bool(tag)
    assert other not in expected_tags(word, GENRE_TAGS)


def test_instruments_are_matched_by_whole_words() -> None:
    assert expected_tags("harpsichord", INSTRUMENT_TAGS) == {"harpsichord"}
    assert expected_tags("distortion guitar", INSTRUMENT_TAGS) == {"guitar"}
    assert expected_tags("kazoo", INSTRUMENT_TAGS) == frozenset()


def test_recall_is_the_share_of_known_words_among_the_top_tags_of_any_network() -> None:
    first = {"piano": 0.9, "slow": 0.8, "guitar": 0.7, "drums": 0.6}
    second = {"jazz": 0.5, "pop": 0.4, "sad": 0.3, "rock": 0.2}
    assert top_tags(second) == ["jazz", "pop", "sad"]
    asked = Tags(genres=["jazz"], instruments=["grand piano", "brushed drums", "kazoo"])
    assert tag_recall(asked, [first, second]) == pytest.approx(2 / 3)
    assert tag_recall(asked, [first]) == pytest.approx(1 / 2)  # it has no tag for jazz
    assert tag_recall(asked, [second]) == 1
    assert tag_recall(Tags(genres=["polka"], moods=["calm"]), [first, second]) is None
