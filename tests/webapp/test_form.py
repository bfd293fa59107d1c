"""What is filled in becomes the same flags that a person would type."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from v2m.core.types import Tags
from v2m.pipeline import arguments
from v2m.webapp.form import Form, shown
from v2m.webapp.sessions import Rooms


def parsed(form: Form) -> dict[str, object]:
    return arguments.parse(["clip.mp4", *form.words(60.0)]).arguments


def test_an_empty_form_asks_for_nothing() -> None:
    given = parsed(Form())
    assert given["tags"] == Tags()
    assert (given["seed"], given["candidates"], given["start"], given["end"]) == (0, 1, None, None)
    assert given["limits"].duration == 60.0  # type: ignore[attr-defined]


def test_all_that_is_filled_in_arrives(tmp_path: Path) -> None:
    tune = tmp_path / "tune.wav"
    tune.touch()
    form = Form(
        caption="- a dog: it runs", genres="lo-fi, jazz", instruments="piano", tempo=90.5, key="F# minor",
        negative="drums", melody=str(tune), seed=7, takes=9, original="duck", lufs=None, start=1.5, end=3,
        vocals=True, lyrics="[verse]\nla, la: la",
    )  # fmt: skip
    given = parsed(form)
    tags = given["tags"]
    assert isinstance(tags, Tags)
    assert (tags.caption, tags.genres, tags.tempo) == ("- a dog: it runs", ("lo-fi", "jazz"), 90.5)
    assert (tags.key, tags.negative, tags.vocals, tags.lyrics) == ("F# minor", ("drums",), True, "[verse]\nla, la: la")
    assert given["controls"].melody == tune  # type: ignore[attr-defined]
    assert (given["seed"], given["candidates"], given["start"], given["end"]) == (7, 4, 1.5, 3.0)
    assert (given["mix"].original, given["mix"].lufs) == ("duck", None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["[a, b", "{x: 1}", "!!python/object:os.system x", "--overwrite", "null", "1e3"])
def test_whatever_is_typed_is_words(text: str) -> None:
    assert parsed(Form(caption=text))["tags"].caption == text  # type: ignore[attr-defined]


def test_tags_come_back_as_fields_that_say_the_same() -> None:
    tags = Tags(caption="x", genres=("a", "b"), tempo=100.0, key="C major", negative=("drums",))
    fields = shown(tags.to_dict())
    known = {field.name for field in dataclasses.fields(Form)}
    assert parsed(Form(**{name: value for name, value in fields.items() if name in known}))["tags"] == tags


def test_rooms_are_gone_when_their_owner_leaves_or_their_time_is_over() -> None:
    rooms = Rooms(minutes=60)
    try:
        one, two, other = rooms.new("a"), rooms.new("a"), rooms.new("b")
        (one / "film.mp4").write_bytes(b"x")
        rooms.leave("a")
        assert not one.exists()
        assert not two.exists()
        assert other.is_dir()
        rooms.minutes = -1
        rooms.sweep()
        assert not other.exists()
    finally:
        rooms.close()
    assert not rooms.root.exists()
