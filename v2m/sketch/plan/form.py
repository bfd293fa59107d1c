"""Musical form: the sections of a piece, the theme of each, and the energy of each bar.

Section boundaries are chosen by dynamic programming, at strong cuts and changes of energy, where lengths stay musical.
The gains and costs in this module are hand-tuned; no benchmark measures form.

B bars, the last of which opens with the final chord.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from v2m.core.types import Cut, Floats, VisualFeatures

# Themes A, B and C, by number of sections. Pieces with more sections than the longest form begin with rounds of four.
FORMS: dict[int, tuple[str, ...]] = {
    0: ("",),
    1: ("A",),
    2: ("AB", "AA"),
    3: ("ABA", "AAB"),
    4: ("AABA", "ABCA", "ABAB"),
    5: ("ABACA", "AABCA", "AABBA"),
    6: ("ABACBA", "AABACA", "ABABCA"),
}
ROUND_FORMS = ("ABAC", "AABC", "ABCB")
# Dynamics of the form itself, added to the energy measured from the video.
SECTION_ENERGY_OFFSET = {"intro": -0.12, "A": 0.0, "B": 0.1, "C": -0.05, "ending": -0.1}
RETURN_ENERGY_OFFSET = 0.04  # for each return of a theme, up to the third
MOTION_SHARE, CUT_RATE_SHARE = 0.7, 0.3  # of a bar's measured energy


class SectionBounds(NamedTuple):
    """Bars `first` ≤ bar < `last` of one section: "intro", a theme's letter, or "ending"."""

    name: str
    first: int
    last: int


def choose_form(accents: Floats, energy: Floats, seed: int) -> list[SectionBounds]:
    """Return sections that cover all bars, beginning at strong cuts where lengths stay musical.

    accents: (B,) strength of the cut that each bar's downbeat meets, 0 for none. energy: (B,) 0–1.
    """
    rng = np.random.default_rng(seed)
    bounds, has_intro = _section_bounds(accents, energy)
    num_themes = len(bounds) - 2 - has_intro
    num_rounds = (num_themes - 3) // 4 if num_themes > max(FORMS) else 0
    letters = "".join(ROUND_FORMS[rng.integers(len(ROUND_FORMS))] for _ in range(num_rounds))
    choices = FORMS[num_themes - len(letters)]
    letters += choices[rng.integers(len(choices))]
    names = ["intro"] * has_intro + list(letters) + ["ending"]
    return [SectionBounds(*row) for row in zip(names, bounds[:-1], bounds[1:], strict=True)]


def shape_energy(sections: Sequence[SectionBounds], energy: Floats) -> Floats:
    """Return (B,) energy with the form's dynamics added: themes differ, returns grow, the ending fades."""
    energy = energy.copy()
    returns: Counter[str] = Counter()
    for section in sections:
        offset = SECTION_ENERGY_OFFSET[section.name] + RETURN_ENERGY_OFFSET * min(returns[section.name], 3)
        energy[section.first : section.last] += offset
        returns[section.name] += 1
    ending = sections[-1]
    energy[ending.first :] *= np.linspace(0.9, 0.6, ending.last - ending.first)
    return np.clip(energy, 0.1, 1.0)


def measure_bar_energy(features: VisualFeatures, cuts: Sequence[Cut], edges: Floats) -> Floats:
    """Return (B,) motion and cut rate of each bar relative to the video, 0.1–0.9; 0.5 if all are alike.

    edges: (B + 1,) bar lines in seconds.
    """
    total = np.concatenate([[0.0], np.cumsum(features.motion)])
    index = np.searchsorted(features.times, edges)
    low = np.minimum(index[:-1], len(features.times) - 1)
    high = np.maximum(index[1:], low + 1)
    curves = [_normalize((total[high] - total[low]) / (high - low))]
    if cuts:
        reach = 1.5 * np.median(np.diff(edges))
        times = np.array([cut.time for cut in cuts])
        centers = (edges[:-1] + edges[1:]) / 2
        num_cuts = np.searchsorted(times, centers + reach) - np.searchsorted(times, centers - reach)
        curves.append(_normalize(num_cuts))
    mixed = np.average(curves, axis=0, weights=[MOTION_SHARE, CUT_RATE_SHARE][: len(curves)])
    padded = np.pad(mixed, 2, mode="edge")  # binomial smoothing over five bars
    return 0.1 + 0.8 * np.convolve(padded, np.array([1, 4, 6, 4, 1]) / 16, mode="valid")


def _normalize(curve: np.ndarray) -> Floats:
    """Scale `curve` from its 5th to its 95th percentile to 0–1; 0.5 throughout where it hardly changes."""
    low, high = np.percentile(curve, [5, 95])
    if high - low <= 0.1 * high:
        return np.full(len(curve), 0.5)
    return np.clip((curve - low) / (high - low), 0.0, 1.0)


def _section_bounds(accents: Floats, energy: Floats) -> tuple[list[int], bool]:
    """Return the bars at which sections begin, with B at the end, and whether there is an intro."""
    B = len(accents)
    has_intro = B >= 7
    usual_bars = 4 if B < 24 else 8 if B < 96 else 16
    intro_costs = {1: 0.5, 2: 0.0, 4: 0.0 if B >= 24 else 0.6} if has_intro else {0: 0.0}  # by length in bars
    ending_costs = {1: 0.0, 2: 0.1} if B < 24 else {2: 0.1, 3: 0.4, 4: 0.0}
    gain = 0.5 * np.abs(np.diff(energy, prepend=energy[:1])) + 1.2 * accents
    best = np.full(B + 1, -np.inf)  # worth of the best sections before a boundary at each bar
    previous = np.full(B + 1, -1)
    for first, cost in intro_costs.items():
        best[first] = gain[first] - cost if first else 0.0
    for end in range(1, B):
        for length in range(1, min(end, 2 * usual_bars) + 1):
            worth = best[end - length] + gain[end] - _length_cost(length, usual_bars)
            if worth > best[end]:
                best[end], previous[end] = worth, end - length
    for length, cost in ending_costs.items():
        if length < B and best[B - length] - cost > best[B]:
            best[B], previous[B] = best[B - length] - cost, B - length
    if B == 1:
        return [0, 1], False
    bounds = [B]
    while previous[bounds[-1]] >= 0:
        bounds.append(int(previous[bounds[-1]]))
    return ([0] if has_intro else []) + bounds[::-1], has_intro


def _length_cost(bars: int, usual_bars: int) -> float:
    """Cost of a section of `bars` bars: multiples of four and about `usual_bars` are cheapest."""
    odd = 0.0 if bars % 4 == 0 else 0.25 if bars % 2 == 0 else 0.7
    return odd + 0.6 * abs(np.log2(bars / usual_bars)) + (1.0 if bars == 1 else 0.0) + 0.5
