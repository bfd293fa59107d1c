"""Ranking by accents on the cuts and loudness with the motion."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.rhythm import onset_strength
from v2m.analysis.synchrony import density_correlation, sync_score
from v2m.core.types import Audio, Cut, VisualFeatures

RATE, SECONDS = 48000, 20
CUTS = tuple(Cut(time, strength) for time, strength in [(2.31, 1.0), (5.87, 0.6), (9.42, 0.8), (15.03, 0.4)])


def clicks(times: list[float], level: np.ndarray | None = None, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    samples = 0.01 * rng.standard_normal(RATE * SECONDS) * (1 if level is None else level)
    for time in times:
        at = int(time * RATE)
        samples[at : at + 4800] += 0.5 * np.exp(-np.arange(4800) / 800) * rng.standard_normal(4800)
    return Audio(np.stack([samples, samples]).astype(np.float32), RATE)


def features_with(motion: np.ndarray | None = None, cuts: tuple[Cut, ...] = CUTS) -> VisualFeatures:
    times = np.arange(0, SECONDS, 0.1)
    flat = np.full(len(times), 0.5)
    return VisualFeatures(
        10.0, times, flat, flat, flat, flat if motion is None else motion, flat, np.zeros(12), 0.0, cuts
    )


def test_planted_onset_is_found_within_two_hops() -> None:
    onsets = onset_strength(clicks([3.21, 7.0]))
    assert len(onsets) == 100 * SECONDS
    peaks = sorted(np.argsort(onsets)[-40:])
    assert all(min(abs(peak - 321), abs(peak - 700)) <= 3 for peak in np.argsort(onsets)[-2:]), peaks


def test_accents_on_cuts_score_above_accents_elsewhere() -> None:
    met = sync_score(clicks([cut.time for cut in CUTS]), features_with())
    shifts = (0.3, 0.45, 0.6, 0.75, 0.9, 1.05, 1.2, 1.35)
    missed = [sync_score(clicks([cut.time + s for cut in CUTS], seed=n), features_with()) for n, s in enumerate(shifts)]
    assert met.accents == pytest.approx(1.0, abs=0.03)
    assert np.mean([each.accents or 0.0 for each in missed]) == pytest.approx(0.5, abs=0.15)
    assert all(met.total > each.total for each in missed)


def test_accents_count_within_the_tolerance_only() -> None:
    near = sync_score(clicks([cut.time + 0.05 for cut in CUTS]), features_with()).accents
    far = sync_score(clicks([cut.time + 0.15 for cut in CUTS]), features_with()).accents
    assert near is not None
    assert far is not None
    assert near > 0.95 > far


def test_loudness_along_motion_scores_above_loudness_against_it() -> None:
    ramp = np.linspace(0.1, 1.0, RATE * SECONDS)
    moving = features_with(np.linspace(0, 1, 10 * SECONDS), ())
    up, down = sync_score(clicks([], ramp), moving), sync_score(clicks([], ramp[::-1]), moving)
    assert up.dynamics == pytest.approx(1.0, abs=0.05)
    assert down.dynamics == pytest.approx(-1.0, abs=0.05)
    assert up.accents is None
    assert up.total > 0.5 > down.total


def test_density_along_motion_correlates_and_ties_share_a_rank() -> None:
    counts = np.repeat([1, 2, 4, 8], SECONDS // 4)  # attacks a second
    attacks = np.concatenate([second + (np.arange(count) + 0.5) / count for second, count in enumerate(counts)])
    moving = features_with(np.repeat(counts, 10) / 10, ())
    assert density_correlation(attacks, moving) == pytest.approx(1.0, abs=0.05)
    assert density_correlation(SECONDS - attacks, moving) == pytest.approx(-1.0, abs=0.05)
    assert density_correlation(np.arange(SECONDS) + 0.5, moving) is None, "an even density has no ranks"
    assert density_correlation(attacks, features_with(None, ())) is None, "nor has an even motion"


@pytest.mark.parametrize("samples", [1, 480, 5000])
def test_very_short_audio_is_scored_without_error(samples: int) -> None:
    times = np.zeros(1)
    still = VisualFeatures(10.0, times, times, times, times, times, times, np.zeros(12), 0.0, ())
    assert sync_score(Audio(np.zeros((2, samples), np.float32), RATE), still).total == 0.5
