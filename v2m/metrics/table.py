"""Rows of measures as one table: means with bootstrap intervals, systems side by side, Markdown and CSV.

n videos.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from v2m.metrics.row import Row

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Mean:
    """Of the `n` videos for which there is a value; low, high: 95 % bootstrap interval over videos (percentiles)."""

    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean(values: Sequence[float | None], seed: int = 0) -> Mean | None:
    """None where no video has a value."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.percentile(known[drawn].mean(axis=1), INTERVAL)
    return Mean(len(known), float(known.mean()), float(low), float(high))


def means(rows: Mapping[str, Row]) -> dict[str, Mean]:
    """Of each measure, over the videos of `rows`."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    found = {name: mean([row.get(name) for row in rows.values()]) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def markdown(rows: Mapping[str, Row]) -> str:
    """A measure in each line, a video in each column, the mean with its interval and n at the end."""
    total = means(rows)
    head = ["measure", *rows, "mean [95 %]", "n"]
    lines = [
        [name, *(shown(row.get(name)) for row in rows.values()), str(value), str(value.n)]
        for name, value in total.items()
    ]
    return _grid(head, lines)


def compared(systems: Mapping[str, Mapping[str, Row]]) -> str:
    """Means of each system over the videos that all have, and how far it lies from the first on the same ones."""
    common = sorted(set.intersection(*(set(rows) for rows in systems.values())))
    kept = {system: {name: rows[name] for name in common} for system, rows in systems.items()}
    first, *others = kept
    total = {system: means(rows) for system, rows in kept.items()}
    head = ["measure", *kept, *(f"{other} − {first}" for other in others), "n"]
    lines = []
    for name in dict.fromkeys(name for each in total.values() for name in each):
        apart = [mean(_differences(kept[first], kept[other], name)) for other in others]
        count = max((each[name].n for each in total.values() if name in each), default=0)
        cells = [str(total[system].get(name) or "–") for system in kept] + [str(each or "–") for each in apart]
        lines.append([name, *cells, str(count)])
    return _grid(head, lines)


def _differences(first: Mapping[str, Row], other: Mapping[str, Row], name: str) -> list[float | None]:
    pairs = [(first[video].get(name), other[video].get(name)) for video in first]
    return [None if a is None or b is None else b - a for a, b in pairs]


def comma_separated(systems: Mapping[str, Mapping[str, Row]]) -> str:
    """A line for each system and video, unrounded; empty where there is no value."""
    names = list(dict.fromkeys(name for rows in systems.values() for row in rows.values() for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["system", "video", *names])
    for system, rows in systems.items():
        for video, row in rows.items():
            writer.writerow([system, video, *("" if row.get(name) is None else row[name] for name in names)])
    return out.getvalue()


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    clean = [[cell.replace("|", "\\|") for cell in line] for line in (head, *lines)]
    ruled = [clean[0], ["---"] * len(head), *clean[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
