"""Messages of the page name what is on the page."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from v2m.core.errors import UsageError, format_error
from v2m.generators.diffusers.pipeline import OOM_HINT
from v2m.taggers.videollama import OOM_HINT as TAGGER_HINT
from v2m.webapp import html
from v2m.webapp.form import FIELDS, LABELS
from v2m.webapp.html import NO_CURE, to_page_words

RECORD = {"range": {"start": 0.0, "end": 4.0}, "mix": {"range_loudness": None}, "alignment": None}


@pytest.mark.parametrize(("message", "shown"), [
    ("the melody is 9 s: give `end=9`, or no `melody`",
     "the melody is 9 s: give “Music to second” 9, or no “Melody to follow”"),
    ("music from 1 to 2 s: give the same `start` and `end`",
     "music from 1 to 2 s: give the same “Music from second” and “Music to second”"),
    ("no prompt; give `tags.genres`", "no prompt; give “Genres”"),
    ("the generator S cannot do `melody`; it can do `inpaint`, `midi`",
     "the generator S cannot do “Melody to follow”; it can do “Part from second”, midi"),
    ("a.mp4 exists already: give `overwrite=True` or another `out`", f"a.mp4 exists already: {NO_CURE}"),
    ("'a.mp4' lasts 99 s, more than 60; cut it into parts or raise `limits.duration`",
     "'a.mp4' lasts 99 s, more than 60; cut it into parts"),
    ("a.mp4 cannot be written as .mp4 (no: tag): give a .mov or .mkv output",
     f"a.mp4 cannot be written as .mp4 (no: tag): {NO_CURE}"),
    (f"out of memory: 9 GB; {OOM_HINT}", "out of memory: 9 GB; try fewer “Takes”"),
    (f"out of memory: {TAGGER_HINT}", f"out of memory: {NO_CURE}"),
    (format_error(OSError(errno.ENOSPC, "No space left on device")),
     "the output cannot be written (No space left on device): free some room"),
    ("plain: text, or more", "plain: text, or more"),
])  # fmt: skip
def test_messages_name_labels_and_cures_of_the_page(message: str, shown: str) -> None:
    assert to_page_words(message) == shown
    assert html.error_message(UsageError(message)) == html.paragraph(shown, is_error=True)
    assert shown in html.summary(RECORD | {"warnings": [message]}, 1.0).replace("&#x27;", "'")


def test_every_field_of_the_form_has_its_label_on_the_page() -> None:
    assert {*FIELDS} <= {*LABELS}
    page = (Path(html.__file__).parent / "ui.py").read_text()
    assert {*re.findall(r'_named\("(\w+)"', page)} == {*FIELDS}
