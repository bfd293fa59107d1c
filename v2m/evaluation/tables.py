"""Rows of measures as one table: means with bootstrap intervals, systems side by side, Markdown and CSV.

n videos.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from v2m.core.types import Floats
from v2m.evaluation.bootstrap import bootstrap_ci
from v2m.evaluation.per_clip import Row

NUM_RESAMPLES = 2000
CI_PERCENTILES = (2.5, 97.5)  # percentiles
MEAN_COLUMN, GROUND_TRUTH, SHUFFLED = "mean [95 %]", "ground truth", "shuffled"
SUMMARY_HEADER = ["measure", "embedding", "system", "n", "value", "low", "high"]


@dataclass(frozen=True)
class Mean:
    """Of the `n` videos for which there is a value; low, high: 95 % bootstrap interval over videos (percentiles)."""

    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class SetMetric(Mean):
    """Of all videos together, no mean of theirs; `draws` of a bootstrap, the same videos for each system."""

    draws: Floats = field(default_factory=lambda: np.zeros(0), repr=False)

    def difference(self, other: SetMetric) -> Mean:
        """How far `other` lies from this one; its bootstrap's interval, reflected as theirs are."""
        value, (low, high) = other.value - self.value, np.percentile(other.draws - self.draws, CI_PERCENTILES)
        return Mean(other.n, value, 2 * value - float(high), 2 * value - float(low))


@dataclass
class Baselines:
    """What stands beside the rows of systems: the truth's, by video; those of each system with the music of other
    videos; what is of all videos of a system, or of the truth, together; and what to know when reading it."""

    ground_truth: dict[str, Row] = field(default_factory=dict)
    shuffled: dict[str, dict[str, Row]] = field(default_factory=dict)
    set_metrics: dict[str, dict[str, SetMetric]] = field(default_factory=dict)
    ground_truth_set: dict[str, SetMetric] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def with_system_name(self, system: str) -> Baselines:
        """With another name for the only system."""
        shuffled, whole = next(iter(self.shuffled.values()), {}), next(iter(self.set_metrics.values()), {})
        return replace(self, shuffled={system: shuffled}, whole={system: whole})


def mean_ci(values: Sequence[float | None], seed: int = 0) -> Mean | None:
    """None where no video has a value."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    return Mean(len(known), float(known.mean()), *bootstrap_ci(known, seed, num_resamples=NUM_RESAMPLES))


def column_means(rows: Mapping[str, Row]) -> dict[str, Mean]:
    """Of each measure, over the videos of `rows`."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    found = {name: mean_ci([row.get(name) for row in rows.values()]) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def to_markdown(rows: Mapping[str, Row], baselines: Baselines | None = None) -> str:
    """A measure in each line, a video in each column, the mean with its interval and n at the end."""
    return _render_table({MEAN_COLUMN: rows}, (baselines or Baselines()).with_system_name(MEAN_COLUMN), videos=True)


def comparison_markdown(systems: Mapping[str, Mapping[str, Row]], baselines: Baselines | None = None) -> str:
    """Means of each system over the videos that all have, and how far it lies from the first on the same ones."""
    return _render_table(shared_rows(systems), baselines or Baselines(), videos=False)


def shared_rows(systems: Mapping[str, Mapping[str, Row]]) -> dict[str, dict[str, Row]]:
    """The rows of the videos that all have."""
    shared = sorted(set.intersection(*(set(rows) for rows in systems.values())))
    return {system: {name: rows[name] for name in shared} for system, rows in systems.items()}


def _render_table(systems: Mapping[str, Mapping[str, Row]], baselines: Baselines, *, videos: bool) -> str:
    """Where there is nothing beside them, without the columns that would be empty."""
    every = summarize(systems, baselines)
    first, *others = systems
    shown = next(iter(systems.values())) if videos else {}
    last = [GROUND_TRUTH, *_shuffled_columns(systems)]
    last = [column for column in last if any(column in found for found in every.values())]
    named = any("@" in name for name in every)
    columns = [*systems, *(f"{other} − {first}" for other in others), *last]
    lines = []
    for name, found in every.items():
        measure, _, embedding = name.partition("@")
        cells = [str(found.get(column) or "–") for column in columns]
        count = max(found[system].n for system in systems if system in found) if found else 0
        values = [_format_value(row.get(name)) for row in shown.values()]
        lines.append([measure, *([embedding] if named else []), *values, *cells, str(count)])
    return _render_grid(["measure", *(["embedding"] if named else []), *shown, *columns, "n"], lines)


def summarize(
    systems: Mapping[str, Mapping[str, Row]], baselines: Baselines | None = None
) -> dict[str, dict[str, Mean]]:
    """By measure, then by column: each system, `B − A` for each but the first, the truth, and each one shuffled."""
    baselines = baselines or Baselines()
    first, *others = systems
    columns = {system: column_means(rows) | baselines.set_metrics.get(system, {}) for system, rows in systems.items()}
    apart = {f"{other} − {first}": _differences_from_first(systems, baselines, first, other) for other in others}
    truth = column_means(baselines.ground_truth) | baselines.ground_truth_set
    floors = {
        floor: column_means(baselines.shuffled.get(name, {})) for floor, name in _shuffled_columns(systems).items()
    }
    names = dict.fromkeys(name for found in columns.values() for name in found)
    parts = {**columns, **apart, GROUND_TRUTH: truth, **floors}
    return {name: {column: found[name] for column, found in parts.items() if name in found} for name in names}


def _differences_from_first(
    systems: Mapping[str, Mapping[str, Row]], baselines: Baselines, first: str, other: str
) -> dict[str, Mean]:
    names = dict.fromkeys(name for row in systems[first].values() for name in row)
    found = {name: mean_ci(_paired_differences(systems[first], systems[other], name)) for name in names}
    whole = {
        name: one.difference(baselines.set_metrics[other][name])
        for name, one in baselines.set_metrics.get(first, {}).items()
        if name in baselines.set_metrics.get(other, {})
    }
    return {name: value for name, value in found.items() if value is not None} | whole


def summary_csv(systems: Mapping[str, Mapping[str, Row]], baselines: Baselines | None = None) -> str:
    """A line for each measure and column of the table, with n, unrounded."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([SUMMARY_HEADER, *summary_rows(systems, baselines)])
    return out.getvalue()


def summary_rows(systems: Mapping[str, Mapping[str, Row]], baselines: Baselines | None = None) -> list[list[object]]:
    """The lines of `summary_csv`, whose columns are SUMMARY."""
    return [
        [*_split_metric_name(name), column, found.n, found.value, found.low, found.high]
        for name, columns in summarize(systems, baselines).items()
        for column, found in columns.items()
    ]


def _shuffled_columns(systems: Mapping[str, object]) -> dict[str, str]:
    """What each system is called where it is shuffled."""
    return {f"{SHUFFLED} {name}" if len(systems) > 1 else SHUFFLED: name for name in systems}


def _split_metric_name(name: str) -> tuple[str, str]:
    """A measure, and by which embedding."""
    measure, _, embedding = name.partition("@")
    return measure, embedding


def _paired_differences(first: Mapping[str, Row], other: Mapping[str, Row], name: str) -> list[float | None]:
    pairs = [(first[video].get(name), other[video].get(name)) for video in first]
    return [None if a is None or b is None else b - a for a, b in pairs]


def to_csv(systems: Mapping[str, Mapping[str, Row]], baselines: Baselines | None = None) -> str:
    """A line for each system and video, unrounded; empty where there is no value."""
    names, lines = clip_rows(systems, baselines)
    out = io.StringIO()
    written = (["" if value is None else value for value in line] for line in lines)
    csv.writer(out, lineterminator="\n").writerows([names, *written])
    return out.getvalue()


def clip_rows(
    systems: Mapping[str, Mapping[str, Row]], baselines: Baselines | None = None
) -> tuple[list[str], list[list[object]]]:
    """Columns, and a line for each video of each system, then of the truth, and of the systems shuffled."""
    baselines = baselines or Baselines()
    floors = {floor: baselines.shuffled.get(name, {}) for floor, name in _shuffled_columns(systems).items()}
    every = {**systems, GROUND_TRUTH: baselines.ground_truth, **floors}
    names = list(dict.fromkeys(name for rows in every.values() for row in rows.values() for name in row))
    lines = [
        [system, video, *(row.get(name) for name in names)]
        for system, rows in every.items()
        for video, row in rows.items()
    ]
    return ["system", "video", *names], lines


def _format_value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _render_grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    clean = [[cell.replace("|", "\\|") for cell in line] for line in (head, *lines)]
    ruled = [clean[0], ["---"] * len(head), *clean[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
