"""The form of a piece: which bars belong together, which theme they bring, and how loud the picture wants them.

B bars, the last of which opens with the final chord.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from v2m.core.types import Cut, Floats, VisualFeatures

# A, B and C are themes. Pieces with more passages than the longest form go through rounds of four first.
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
SECTION_ENERGY_OFFSET = {
    "intro": -0.12,
    "A": 0.0,
    "B": 0.1,
    "C": -0.05,
    "ending": -0.1,
}  # of a theme's energy, whatever the picture
RETURN_ENERGY_OFFSET = 0.04  # of each return, up to the third


class SectionBounds(NamedTuple):
    """Bars `first` ≤ bar < `last` under one name: "intro", a theme's letter, or "ending"."""

    name: str
    first: int
    last: int


def choose_form(accents: Floats, energy: Floats, seed: int) -> list[SectionBounds]:
    """Parts that cover all bars, beginning at strong cuts where lengths stay musical.

    accents: (B,) strength of the cut that each bar's downbeat meets, 0 for none. energy: (B,) 0–1.
    """
    rng = np.random.default_rng(seed)
    bounds, intro = _section_bounds(accents, energy)
    body = len(bounds) - 2 - intro
    letters = "".join(ROUND_FORMS[rng.integers(len(ROUND_FORMS))] for _ in range((body - 3) // 4 if body > 6 else 0))
    choices = FORMS[body - len(letters)]
    letters += choices[rng.integers(len(choices))]
    names = ["intro"] * intro + list(letters) + ["ending"]
    return [SectionBounds(*part) for part in zip(names, bounds[:-1], bounds[1:], strict=True)]


def shape_energy(parts: Sequence[SectionBounds], energy: Floats) -> Floats:
    """(B,) energy with the form's own dynamics added: themes differ, returns grow, the ending winds down."""
    energy = energy.copy()
    returns: Counter[str] = Counter()
    for part in parts:
        energy[part.first : part.last] += SECTION_ENERGY_OFFSET[part.name] + RETURN_ENERGY_OFFSET * min(
            returns[part.name], 3
        )
        returns[part.name] += 1
    ending = parts[-1]
    energy[ending.first :] *= np.linspace(0.9, 0.6, ending.last - ending.first)
    return np.clip(energy, 0.1, 1.0)


def measure_bar_energy(features: VisualFeatures, cuts: Sequence[Cut], edges: Floats) -> Floats:
    """(B,) how much each bar's picture moves and cuts against the rest of the video, 0.1–0.9; 0.5 where all is alike.

    edges: (B + 1,) bar lines in seconds.
    """
    middles = (edges[:-1] + edges[1:]) / 2
    total = np.concatenate([[0.0], np.cumsum(features.motion)])
    index = np.searchsorted(features.times, edges)
    low = np.minimum(index[:-1], len(features.times) - 1)
    high = np.maximum(index[1:], low + 1)
    curves = [(_normalize((total[high] - total[low]) / (high - low)), 0.7)]
    if cuts:
        reach = 1.5 * np.median(np.diff(edges))
        times = np.array([cut.time for cut in cuts])
        near = np.searchsorted(times, middles + reach) - np.searchsorted(times, middles - reach)
        curves.append((_normalize(near), 0.3))
    mixed = np.average([curve for curve, _ in curves], axis=0, weights=[share for _, share in curves])
    padded = np.pad(mixed, 2, mode="edge")
    return 0.1 + 0.8 * np.convolve(padded, np.array([1, 4, 6, 4, 1]) / 16, mode="valid")


def _normalize(curve: np.ndarray) -> Floats:
    """`curve` between its 5th and 95th percentile as 0–1; 0.5 throughout where it hardly changes."""
    low, high = np.percentile(curve, [5, 95])
    if high - low <= 0.1 * high:
        return np.full(len(curve), 0.5)
    return np.clip((curve - low) / (high - low), 0.0, 1.0)


def _section_bounds(accents: Floats, energy: Floats) -> tuple[list[int], bool]:
    """The bars at which passages open, with B at the end, and whether the first one is an intro."""
    B = len(accents)
    intro = B >= 7
    unit = 4 if B < 24 else 8 if B < 96 else 16
    opening = {1: 0.5, 2: 0.0, 4: 0.0 if B >= 24 else 0.6} if intro else {0: 0.0}
    closing = {1: 0.0, 2: 0.1} if B < 24 else {2: 0.1, 3: 0.4, 4: 0.0}
    gain = 0.5 * np.abs(np.diff(energy, prepend=energy[:1])) + 1.2 * accents
    best = np.full(B + 1, -np.inf)  # a passage opens at each bar
    before = np.full(B + 1, -1)
    for first, cost in opening.items():
        best[first] = gain[first] - cost if first else 0.0
    for end in range(1, B):
        for length in range(1, min(end, 2 * unit) + 1):
            worth = best[end - length] + gain[end] - _length_cost(length, unit)
            if worth > best[end]:
                best[end], before[end] = worth, end - length
    for length, cost in closing.items():
        if length < B and best[B - length] - cost > best[B]:
            best[B], before[B] = best[B - length] - cost, B - length
    if B == 1:
        return [0, 1], False
    bounds = [B]
    while before[bounds[-1]] >= 0:
        bounds.append(int(before[bounds[-1]]))
    return ([0] if intro else []) + bounds[::-1], intro


def _length_cost(bars: int, unit: int) -> float:
    """What a passage of so many bars costs: phrases go in twos and fours, near to `unit` bars."""
    odd = 0.0 if bars % 4 == 0 else 0.25 if bars % 2 == 0 else 0.7
    return odd + 0.6 * abs(np.log2(bars / unit)) + (1.0 if bars == 1 else 0.0) + 0.5
