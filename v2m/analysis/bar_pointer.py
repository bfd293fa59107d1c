"""Bar-pointer model: the likeliest beats, downbeats and tempi given activations, by Viterbi.

Krebs, Böck & Widmer, "An efficient state-space model for joint tempo and meter tracking" (2015), with the observations
of Böck, Krebs & Widmer, "Joint beat and downbeat tracking with recurrent neural networks" (2016). In that model the
position in the bar only moves on between two beats; the search therefore goes from beat to beat, over the number of
frames each may last. T frames, N intervals, K positions of beats in the bars of all meters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2m.core import timing
from v2m.core.types import Floats

FRAMES_PER_SECOND = 100  # of the search; activations are interpolated
MIN_TEMPO, MAX_TEMPO = 50.0, 220.0  # beats per minute
NUM_INTERVALS = 72  # at most, between them; a step is two percent or a frame
MAX_STEP = 8  # intervals by which one beat's differs from the last one's
TRANSITION_LAMBDA = 200.0  # the probability of a change is proportional to exp(−λ · relative change)
OBSERVATION_LAMBDA = 16  # the first 1 / λ of an interval is the beat
NOVELTY_WEIGHT = 1.5  # nats a beat and deviation
MIN_PROBABILITY = 1e-4
METERS = (3, 4)
MIN_STRENGTH = 0.2  # of the first and the last beat
IRREGULAR_BAR_COST = 10.0  # nats, of a bar that is shorter than its meter
USUAL_TEMPO = (110.0, 1.0)  # median and octaves of the log-normal prior without a hint
HINT_OCTAVES = 0.2  # of the prior around a hint
BLOCK = 1000  # frames for which scores of intervals are held


@dataclass(frozen=True)
class BeatPath:
    """B beats: `times` (B,) in seconds, `is_downbeat` (B,), `strengths` (B,) probabilities, and meter."""

    times: Floats
    is_downbeat: NDArray[np.bool_]
    strengths: Floats
    meter: int


def find_path(activations: Floats, rate: int, tempo: float | None = None, novelty: Floats | float = 0.0) -> BeatPath:
    """Return the likeliest beats under `activations` (T, 2) of beats and downbeats, `rate` a second.

    `tempo` (beats per minute) is a hint, which strong evidence overrides. `novelty` (T,) is other evidence of a beat,
    in deviations from its mean: it decides where the activations do not.
    """
    duration = timing.samples_to_seconds(len(activations), rate)
    times = timing.time_grid(FRAMES_PER_SECOND, duration)
    source = timing.time_grid(rate, duration)
    curves = np.stack([np.interp(times, source, curve) for curve in activations.T], axis=1)
    shortest, longest = (timing.beat_seconds(bpm) * FRAMES_PER_SECOND for bpm in (MAX_TEMPO, MIN_TEMPO))
    intervals = np.unique(np.rint(np.geomspace(shortest, longest, NUM_INTERVALS)).astype(int))
    bonus = NOVELTY_WEIGHT * np.interp(times, source, np.broadcast_to(novelty, len(source)))
    starts, positions, lengths = _viterbi(curves, bonus, intervals, _tempo_prior(intervals, tempo))
    return _describe(curves, starts, positions, lengths)


def _tempo_prior(intervals: NDArray[np.integer], tempo: float | None) -> Floats:
    """(N,) log prior of each interval; over a time it weighs the same for all tempi."""
    median, octaves = USUAL_TEMPO if tempo is None else (tempo, HINT_OCTAVES)
    tempi = timing.beat_seconds(1.0) * FRAMES_PER_SECOND / intervals
    return -0.5 * (np.log2(tempi / median) / octaves) ** 2 * timing.seconds_to_frames(intervals, 1 / FRAMES_PER_SECOND)


def _viterbi(
    curves: Floats, bonus: Floats, intervals: NDArray[np.integer], prior: Floats
) -> tuple[NDArray[np.integer], ...]:
    """Return each beat's start, position (0: downbeat, of all meters in turn) and interval, in frames.

    The mean of `bonus` (T,) over a beat's frames is added to its log probability.

    With V[t, k, n] the score of a beat that starts at frame t at position k and lasts n frames:

        V[t, k, n] = prior(n) + max over m (change(m, n) + max over j (V[t − m, j, m] + evidence(t − m, j, m)))

    where j precedes k. The first beat starts before the recording or at 0, the last one ends at its end or later.
    """
    margin, count, steps = int(intervals[-1]), len(intervals), np.arange(-MAX_STEP, MAX_STEP + 1)
    total = len(curves) + 2 * margin
    downbeats = np.cumsum((0, *METERS))[:-1]  # (meters,) positions, then inside of bars
    num_positions = sum(METERS)
    kinds = np.isin(np.arange(num_positions), downbeats).astype(int)
    before = np.clip(np.arange(count)[:, None] + steps, 0, count - 1)  # (N, S) intervals that n may follow
    change = -TRANSITION_LAMBDA * np.abs(intervals[:, None] / intervals[before] - 1)
    change[(np.arange(count)[:, None] + steps != before)] = -np.inf
    cumulative = _cumulative_evidence(curves, bonus, margin)
    lasts = _beat_frames(intervals)
    held = margin + 1  # frames whose scores are still needed
    score = np.broadcast_to(prior, (held, num_positions, count)).astype(np.float32)
    step_taken = np.zeros((total, num_positions, count), np.int8)
    jumped_from = np.zeros((total, len(METERS), count), np.int8)
    column = np.arange(count)
    for first in range(held, total, BLOCK):
        frames = np.arange(first, min(first + BLOCK, total))
        starts = frames[:, None] - intervals  # (block, N)
        ends = starts + lasts
        on_beat = cumulative[:2, ends] - cumulative[:2, starts]  # (2, block, N)
        novelty_gain = (cumulative[3, ends] - cumulative[3, starts]) / lasts  # by beat, so that no tempo is favored
        gained = (on_beat + novelty_gain + cumulative[2, frames[:, None]] - cumulative[2, ends]).transpose(1, 0, 2)
        for frame, start, gain in zip(frames, starts % held, gained, strict=True):
            ended = score[start, :, column].T + gain[kinds]  # (K, N)
            opened = np.roll(ended, 1, axis=0)
            for meter, (low, length) in enumerate(zip(downbeats, METERS, strict=True)):
                bar = ended[low : low + length].copy()
                bar[:-1] -= IRREGULAR_BAR_COST
                jumped_from[frame, meter] = bar.argmax(axis=0)
                opened[low] = bar.max(axis=0)
            options = opened[:, before] + change  # (K, N, S)
            step_taken[frame] = options.argmax(axis=-1)
            score[frame % held] = options.max(axis=-1) + prior
    last_scores = score[np.arange(total - margin, total) % held]
    return _trace_back(last_scores, step_taken, jumped_from, intervals, downbeats)


def _beat_frames(intervals: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return how many frames of each interval are its beat."""
    return -(-intervals // OBSERVATION_LAMBDA)


def _cumulative_evidence(curves: Floats, bonus: Floats, margin: int) -> Floats:
    """(4, T + 2 `margin` + 1) sums up to each frame.

    Of the log probability as beats, as downbeats, as neither; and of `bonus`.
    """
    curves = np.maximum(curves, MIN_PROBABILITY)
    neither = np.maximum(1 - curves.sum(axis=1), MIN_PROBABILITY) / (OBSERVATION_LAMBDA - 1)
    rows = np.vstack([np.log(np.column_stack([curves, neither])).T, bonus])
    return np.cumsum(np.pad(rows, ((0, 0), (margin + 1, margin))), axis=1)


def _trace_back(
    last_scores: NDArray[np.float32],
    step_taken: NDArray[np.int8],
    jumped_from: NDArray[np.int8],
    intervals: NDArray[np.integer],
    downbeats: NDArray[np.integer],
) -> tuple[NDArray[np.integer], ...]:
    """Return what `_viterbi` returns, from the best of the beats that follow the recording."""
    margin = len(last_scores)
    after, position, interval = (int(k) for k in np.unravel_index(last_scores.argmax(), last_scores.shape))
    frame = len(step_taken) - margin + after
    path: list[tuple[int, int, int]] = []
    while frame > margin:
        interval = interval + int(step_taken[frame, position, interval]) - MAX_STEP
        meter = np.flatnonzero(downbeats == position)
        position = position - 1 if not len(meter) else position + int(jumped_from[frame, meter[0], interval])
        frame -= int(intervals[interval])
        path.append((frame - margin, position, int(intervals[interval])))
    rows = np.array(path[::-1], int).reshape(-1, 3)
    return tuple(rows[rows[:, 0] >= 0].T)


def _describe(
    curves: Floats, starts: NDArray[np.integer], positions: NDArray[np.integer], lengths: NDArray[np.integer]
) -> BeatPath:
    """Time each beat at the centroid of its activation: in the path it starts where that rises.

    Beats before the first and after the last activation are left out.
    """
    total = curves.sum(axis=1)
    spans = [slice(start, start + last) for start, last in zip(starts, _beat_frames(lengths), strict=True)]
    strengths = np.array([total[span].max() for span in spans])
    times = np.array([np.average(np.arange(len(total))[span], weights=total[span] + 1e-9) for span in spans])
    active = np.flatnonzero(strengths >= MIN_STRENGTH)
    kept = slice(active[0], active[-1] + 1) if len(active) else slice(0)
    three = np.count_nonzero(positions < METERS[0]) * 2 > len(positions)
    is_downbeat = np.isin(positions, [0, METERS[0]])
    return BeatPath(times[kept] / FRAMES_PER_SECOND, is_downbeat[kept], strengths[kept], METERS[0 if three else 1])
