"""Docstrings begin with a noun phrase or an imperative, on one line of at most 100 characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.docstrings import BAD_OPENERS, first_lines, has_bad_opener

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "v2m").rglob("*.py"), *(ROOT / "bench").rglob("*.py"), ROOT / "infer.py", ROOT / "train.py"]
FIRST_LINES = [(path, n, line) for path in SOURCES for n, line in first_lines(path)]


def test_no_docstring_opens_with_a_question_word() -> None:
    assert not [f"{path.relative_to(ROOT)}:{n}" for path, n, line in FIRST_LINES if has_bad_opener(line)]


def test_first_line_of_a_docstring_is_short() -> None:
    assert not [f"{path.relative_to(ROOT)}:{n}" for path, n, line in FIRST_LINES if len(line) > 100]


@pytest.mark.parametrize("opener", sorted(BAD_OPENERS))
def test_a_bad_opener_is_detected(opener: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(f'def f():\n    """{opener} it is done."""\n')
    assert [has_bad_opener(line) for _, line in first_lines(tmp_path / "x.py")] == [True]
