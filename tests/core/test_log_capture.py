"""What a part warns of reaches the sidecar once, in one line, and only while somebody listens."""

from __future__ import annotations

import logging

import pytest

from v2m.core import log_capture


def test_warnings_below_v2m_are_kept_in_order_each_once_and_in_one_line() -> None:
    part = logging.getLogger("v2m.generators.some")
    with log_capture.capture_warnings() as kept:
        part.warning("%s is\n  slow", "this")
        logging.getLogger("v2m").error("broken")
        part.warning("this is slow")
        part.info("of no interest")
        logging.getLogger("elsewhere").warning("of others")
    assert kept == ["this is slow", "broken"]


def test_nothing_is_kept_after_the_block_even_when_it_fails() -> None:
    before, lists = list(logging.getLogger("v2m").handlers), []

    def fail() -> None:
        with log_capture.capture_warnings() as kept:
            lists.append(kept)
            raise ValueError("any")

    with pytest.raises(ValueError, match="any"):
        fail()
    logging.getLogger("v2m.some").warning("late")
    assert lists == [[]]
    assert logging.getLogger("v2m").handlers == before


def test_an_inner_block_takes_nothing_from_the_outer_one() -> None:
    part = logging.getLogger("v2m.some")
    with log_capture.capture_warnings() as outer:
        part.warning("one")
        with log_capture.capture_warnings() as inner:
            part.warning("two")
    assert (outer, inner) == (["one", "two"], ["two"])
