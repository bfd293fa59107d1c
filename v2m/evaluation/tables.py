"""Tables of metrics: means with bootstrap intervals, systems side by side, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from v2m.core.types import Floats
from v2m.evaluation.distances import basic_bootstrap_ci, bootstrap_ci
from v2m.evaluation.per_clip import Row

NUM_RESAMPLES = 2000
MEAN_COLUMN, GROUND_TRUTH, SHUFFLED = "mean [95 %]", "ground truth", "shuffled"
SUMMARY_HEADER = ["measure", "embedding", "system", "n", "value", "low", "high"]
Rows = Mapping[str, Row]  # by name of the video


@dataclass(frozen=True)
class Mean:
    """A mean over the `n` videos that have a value, and its 95 % bootstrap interval over videos."""

    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class SetMetric(Mean):
    """A metric of all videos together; `draws` are a bootstrap's, of the same videos for each system."""

    draws: Floats = field(default_factory=lambda: np.zeros(0), repr=False)

    def difference(self, other: SetMetric) -> Mean:
        """Return `other` minus this one, with the basic bootstrap interval."""
        value = other.value - self.value
        return Mean(other.n, value, *basic_bootstrap_ci(value, other.draws - self.draws))


@dataclass
class Baselines:
    """Baselines of the comparison, by system and by video; `notes` are for the reader of the table."""

    ground_truth: dict[str, Row] = field(default_factory=dict)
    shuffled: dict[str, dict[str, Row]] = field(default_factory=dict)  # with the music of other videos
    set_metrics: dict[str, dict[str, SetMetric]] = field(default_factory=dict)  # of all videos of a system together
    ground_truth_set: dict[str, SetMetric] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def with_system_name(self, system: str) -> Baselines:
        """Return a copy with another name for the only system."""
        shuffled, set_metrics = (next(iter(by_system.values()), {}) for by_system in (self.shuffled, self.set_metrics))
        return replace(self, shuffled={system: shuffled}, set_metrics={system: set_metrics})


def mean_ci(values: Sequence[float | None], seed: int = 0) -> Mean | None:
    """Return the mean of the values that are not None, with its interval; None where there are none."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    return Mean(len(known), float(known.mean()), *bootstrap_ci(known, seed, num_resamples=NUM_RESAMPLES))


def column_means(rows: Rows) -> dict[str, Mean]:
    """Return the mean of each metric over the videos of `rows`."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: mean for name in names if (mean := mean_ci([row.get(name) for row in rows.values()]))}


def to_markdown(rows: Rows, baselines: Baselines | None = None) -> str:
    """Render one system: metrics in lines; in columns videos, the mean with its interval, and n."""
    return _render_table({MEAN_COLUMN: rows}, (baselines or Baselines()).with_system_name(MEAN_COLUMN), videos=True)


def comparison_markdown(systems: Mapping[str, Rows], baselines: Baselines | None = None) -> str:
    """Render means over the videos that all systems have, and differences from the first system."""
    return _render_table(shared_rows(systems), baselines or Baselines(), videos=False)


def shared_rows(systems: Mapping[str, Rows]) -> dict[str, dict[str, Row]]:
    """Return the rows of the videos that all systems have."""
    shared = sorted(set.intersection(*(set(rows) for rows in systems.values())))
    return {system: {name: rows[name] for name in shared} for system, rows in systems.items()}


def _render_table(systems: Mapping[str, Rows], baselines: Baselines, *, videos: bool) -> str:
    """Render a table without columns that would be empty."""
    table = summarize(systems, baselines)
    first, *others = systems
    rows = next(iter(systems.values())) if videos else {}
    columns = [*systems, *(f"{other} − {first}" for other in others)]
    baseline_columns = GROUND_TRUTH, *_shuffled_columns(systems)
    columns += [column for column in baseline_columns if any(column in cells for cells in table.values())]
    has_embeddings = any("@" in metric for metric in table)
    head = ["measure", "embedding"] if has_embeddings else ["measure"]
    lines = []
    for metric, cells in table.items():
        names = list(metric.partition("@")[::2]) if has_embeddings else [metric]
        values = [_format_value(row.get(metric)) for row in rows.values()]
        means = [str(cells.get(column) or "–") for column in columns]
        count = max(cells[system].n for system in systems if system in cells) if cells else 0
        lines.append([*names, *values, *means, str(count)])
    return _render_grid([*head, *rows, *columns, "n"], lines)


def summarize(systems: Mapping[str, Rows], baselines: Baselines | None = None) -> dict[str, dict[str, Mean]]:
    """Return means by metric, then by column: systems, `B − A`, the ground truth, systems shuffled."""
    baselines = baselines or Baselines()
    first, *others = systems
    columns = {system: column_means(rows) | baselines.set_metrics.get(system, {}) for system, rows in systems.items()}
    metrics = dict.fromkeys(metric for means in columns.values() for metric in means)
    columns |= {f"{other} − {first}": _differences(systems, baselines, first, other) for other in others}
    columns[GROUND_TRUTH] = column_means(baselines.ground_truth) | baselines.ground_truth_set
    for column, system in _shuffled_columns(systems).items():
        columns[column] = column_means(baselines.shuffled.get(system, {}))
    filled = columns.items()
    return {metric: {column: means[metric] for column, means in filled if metric in means} for metric in metrics}


def _differences(systems: Mapping[str, Rows], baselines: Baselines, first: str, other: str) -> dict[str, Mean]:
    """Return mean paired differences of `other` from `first`, and those of their set metrics."""
    metrics = dict.fromkeys(metric for row in systems[first].values() for metric in row)
    differences: dict[str, Mean] = {}
    for metric in metrics:
        pairs = [(row.get(metric), systems[other][video].get(metric)) for video, row in systems[first].items()]
        if mean := mean_ci([b - a for a, b in pairs if a is not None and b is not None]):
            differences[metric] = mean
    first_set, other_set = (baselines.set_metrics.get(system, {}) for system in (first, other))
    shared = [metric for metric in first_set if metric in other_set]
    return differences | {metric: first_set[metric].difference(other_set[metric]) for metric in shared}


def summary_csv(systems: Mapping[str, Rows], baselines: Baselines | None = None) -> str:
    """Return CSV with a line for each metric and column of the table, with n, unrounded."""
    return _format_csv([SUMMARY_HEADER, *summary_rows(systems, baselines)])


def summary_rows(systems: Mapping[str, Rows], baselines: Baselines | None = None) -> list[list[object]]:
    """Return the lines of `summary_csv`, whose columns are SUMMARY_HEADER."""
    return [
        [*metric.partition("@")[::2], column, mean.n, mean.value, mean.low, mean.high]
        for metric, columns in summarize(systems, baselines).items()
        for column, mean in columns.items()
    ]


def _shuffled_columns(systems: Mapping[str, object]) -> dict[str, str]:
    """Return each system by the name of its shuffled column."""
    return {f"{SHUFFLED} {name}" if len(systems) > 1 else SHUFFLED: name for name in systems}


def to_csv(systems: Mapping[str, Rows], baselines: Baselines | None = None) -> str:
    """Return CSV with a line for each system and video, unrounded; empty where there is no value."""
    header, lines = clip_rows(systems, baselines)
    return _format_csv([header, *lines])


def clip_rows(systems: Mapping[str, Rows], baselines: Baselines | None = None) -> tuple[list[str], list[list[object]]]:
    """Return column names, and a line for each video of systems, ground truth and shuffled systems."""
    baselines = baselines or Baselines()
    shuffled = {column: baselines.shuffled.get(name, {}) for column, name in _shuffled_columns(systems).items()}
    rows_by_system = {**systems, GROUND_TRUTH: baselines.ground_truth, **shuffled}
    metrics = list(dict.fromkeys(name for rows in rows_by_system.values() for row in rows.values() for name in row))
    lines = [
        [system, video, *(row.get(metric) for metric in metrics)]
        for system, rows in rows_by_system.items()
        for video, row in rows.items()
    ]
    return ["system", "video", *metrics], lines


def _format_csv(lines: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)  # an empty cell for None
    return out.getvalue()


def _format_value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _render_grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (head, *lines)]
    ruled = [escaped[0], ["---"] * len(head), *escaped[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
