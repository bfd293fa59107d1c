"""Names of fields in error messages are shown as command-line flags."""

from __future__ import annotations

import pytest

from v2m.cli.runner import with_flags
from v2m.core import errors

FLAGS = {"out": "--data.out", "overwrite": "--model.predict.overwrite", "tagger": "--model.tagger"}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give `low_memory=True`", "give --low-memory"),
        ("a smaller `generator.max_section`", "a smaller --generator.max_section"),
        ("give `generator.precision=int8`, or", "give --generator.precision int8, or"),
        ("give `tags.vocals=True`", "give --tags.vocals true"),
        ("`overwrite=True` or another `out`", "--model.predict.overwrite true or another --data.out"),
        ("give `tagger.bits=4`", "give --model.tagger.bits 4"),
        ("`uv sync` and `hf download a/b`", "`uv sync` and `hf download a/b`"),
    ],
)
def test_fields_in_a_message_are_shown_as_flags(message: str, shown: str) -> None:
    assert with_flags(message, FLAGS) == shown


def test_bug_message_has_the_debug_hint() -> None:
    assert with_flags("a bug", {}, errors.BUG) == "a bug; --debug shows where"
    assert with_flags("no disk", {}, errors.DISK) == "no disk"
