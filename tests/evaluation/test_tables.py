"""Means, intervals and comparisons of rows, as tables."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from v2m.evaluation.tables import column_means, comparison_markdown, mean_ci, to_csv, to_markdown

FIRST = {"a": {"hits": 0.2, "lufs": -14.0}, "b": {"hits": 0.4, "lufs": None}, "c|d": {"hits": 0.9, "lufs": -16.0}}
SECOND = {"b": {"hits": 0.5, "lufs": -14.0}, "a": {"hits": 0.3, "lufs": -14.0}, "z": {"hits": 0.0, "lufs": 0.0}}


def test_mean_interval_coverage() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(150):
        found = mean_ci(rng.normal(3.0, 1.0, 30).tolist(), seed=trial)
        assert found is not None
        covered.append(found.low <= 3.0 <= found.high)
    assert 0.88 < np.mean(covered) <= 0.99


def test_missing_values_are_left_out_of_means() -> None:
    found = column_means(FIRST)
    assert (found["hits"].n, found["lufs"].n) == (3, 2)
    assert found["hits"].value == pytest.approx(0.5)
    assert found["lufs"].value == -15.0
    assert column_means({"a": {"none": None}}) == {}


def test_table_has_a_line_for_each_metric_and_a_column_for_each_video() -> None:
    lines = to_markdown(FIRST).splitlines()
    assert lines[0].replace("\\|", "") == "| measure | a | b | cd | mean [95 %] | n |"
    assert lines[3].startswith("| lufs | -14 | – | -16 | -15 [-16, -14] | 2 |")


def test_systems_are_compared_on_shared_videos() -> None:
    lines = comparison_markdown({"A": FIRST, "B": SECOND}).splitlines()
    assert lines[0] == "| measure | A | B | B − A | n |"
    assert lines[2] == "| hits | 0.3 [0.2, 0.4] | 0.4 [0.3, 0.5] | 0.1 [0.1, 0.1] | 2 |"


def test_csv_has_every_value_unrounded() -> None:
    rows = list(csv.reader(io.StringIO(to_csv({"A": FIRST, "B": SECOND}))))
    assert rows[0] == ["system", "video", "hits", "lufs"]
    assert rows[2] == ["A", "b", "0.4", ""]
    assert len(rows) == 7
