"""Synchrony of music and video, measured from the audio alone, to rank candidates of any generator.

T hops of 10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from v2m.analysis.loudness import k_weighted_power, power_to_lufs
from v2m.analysis.onsets import HOPS_PER_SECOND, onset_strength
from v2m.core import timing
from v2m.core.types import Audio, Cut, Floats, VisualFeatures

TOLERANCE_S = 0.07  # within which a cut and an onset are perceived as simultaneous


@dataclass(frozen=True)
class SyncScore:
    """Synchrony of music and video.

    Args:
        accents: Mean percentile of the onset strength near the cuts among all instants of the piece, weighted by the
            cuts' strength; 0.5 is chance, None where the video has no cuts.
        dynamics: Rank correlation, −1 to 1, of loudness and motion over seconds; None where either is flat.
        total: The ranking of candidates, 0–1.
    """

    accents: float | None
    dynamics: float | None
    total: float

    def to_dict(self) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 4) for name, value in asdict(self).items()}


def sync_score(audio: Audio, features: VisualFeatures) -> SyncScore:
    """Compute `total` = 0.7 · accents + 0.3 · (1 + dynamics) / 2, with 0.5, its chance level, for a missing part."""
    accents = _accent_percentile(onset_strength(audio), features.cuts)
    dynamics = _dynamics_correlation(audio, features)
    total = 0.7 * (0.5 if accents is None else accents) + 0.3 * (0.5 if dynamics is None else (1 + dynamics) / 2)
    return SyncScore(accents, dynamics, total)


def _accent_percentile(onsets: Floats, cuts: Sequence[Cut]) -> float | None:
    if not cuts or len(onsets) < 2:
        return None
    reach = timing.frame_number(TOLERANCE_S, HOPS_PER_SECOND)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(onsets, reach), 2 * reach + 1).max(axis=1)  # (T,)
    order = np.sort(near)
    hops = [min(timing.frame_number(cut.time, HOPS_PER_SECOND), len(near) - 1) for cut in cuts]
    below = np.searchsorted(order, near[hops], side="left") + np.searchsorted(order, near[hops], side="right")
    return float(np.average(below / (2 * len(order)), weights=[cut.strength + 1e-3 for cut in cuts]))


def _dynamics_correlation(audio: Audio, features: VisualFeatures) -> float | None:
    power = k_weighted_power(audio.samples, audio.sample_rate, timing.sample_count(0.1, audio.sample_rate))
    seconds = min(len(power) // 10, int(features.times[-1]))
    if seconds < 4:
        return None
    levels = np.maximum(power_to_lufs(power[: 10 * seconds].reshape(seconds, 10).mean(axis=1)), -70.0)
    edges = np.searchsorted(features.times, np.arange(seconds + 1))
    total = np.append(0.0, np.cumsum(features.motion))
    motion = np.diff(total[edges]) / np.maximum(np.diff(edges), 1)
    if np.ptp(levels) < 0.1 or np.ptp(motion) < 1e-4:
        return None
    level_ranks, motion_ranks = (np.argsort(np.argsort(curve)) - (seconds - 1) / 2 for curve in (levels, motion))
    return float(level_ranks @ motion_ranks / (level_ranks @ level_ranks))  # Spearman's correlation of ranks
