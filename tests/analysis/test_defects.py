"""Detection of planted defects, and none elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.bars import bars
from v2m.analysis.defects import clipped_share, ending_level, find_click, find_loop, measure_silence
from v2m.core.types import Audio

RATE = 32000


def sound(samples: np.ndarray) -> Audio:
    return Audio(np.stack([samples, samples]).astype(np.float32), RATE)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, int(seconds * RATE))


def tune(seconds: float = 12.0) -> Audio:
    beats = np.arange(0.2, seconds - 0.3, 0.5)
    return bars(beats, np.arange(len(beats)) % 4 == 0, seconds)


def test_silence_is_measured_inside_and_at_both_ends() -> None:
    samples = noise(10)
    samples[: RATE // 2] = samples[3 * RATE : 5 * RATE] = samples[-RATE:] = 0
    silence = measure_silence(sound(samples))
    assert (silence.share, silence.leading, silence.trailing) == (
        pytest.approx(0.35, abs=0.01), pytest.approx(0.5, abs=0.011), pytest.approx(1.0, abs=0.011)
    )  # fmt: skip
    assert measure_silence(sound(np.zeros(RATE))) == type(silence)(1.0, 1.0, 1.0)
    faint, loud = (sound(noise(2) / 0.173 * 10 ** (level / 20)) for level in (-62, -58))
    assert (measure_silence(faint).share, measure_silence(loud).share) == (1.0, 0.0)


def test_clipping_needs_three_consecutive_samples_at_full_scale() -> None:
    samples = noise(1)
    samples[[100, 101, 500]] = 1.0
    assert clipped_share(sound(samples)) == 0
    samples[2000:2010] = -1.0
    assert clipped_share(sound(samples)) == pytest.approx(10 / RATE)


def test_ending_level_separates_decay_from_a_cut_off() -> None:
    held = np.sin(2 * np.pi * 220 * np.arange(8 * RATE) / RATE)
    off, out = held.copy(), held * np.minimum(1, np.linspace(6, 0, len(held)) ** 2)
    off[-int(0.05 * RATE) :] *= np.linspace(1, 0, int(0.05 * RATE))  # the mixer's fade hides no cut
    cut, rung = ending_level(sound(off)), ending_level(sound(out))
    assert cut == pytest.approx(0, abs=0.3)
    assert rung is not None
    assert rung < -20
    assert ending_level(sound(np.zeros(2 * RATE))) is None


def test_loop_is_found_with_its_period_and_a_repeat_performance_is_none() -> None:
    phrase = noise(3.1)
    looped, after = find_loop(sound(np.tile(phrase, 4)))
    assert looped > 0.98
    assert after in (pytest.approx(3.1, abs=0.01), pytest.approx(6.2, abs=0.01))
    assert find_loop(sound(noise(12.4)))[0] < 0.1
    half, _ = find_loop(sound(np.tile(phrase, 4) + noise(12.4, seed=1)))
    assert half == pytest.approx(0.5, abs=0.1)
    assert find_loop(sound(np.zeros(5 * RATE))) == (0.0, 0.0)


def test_hard_joins_click_and_music_does_not() -> None:
    music = tune()
    usual, _ = find_click(music)
    tone = 0.4 * np.sin(2 * np.pi * 220 * np.arange(4 * RATE) / RATE)
    joined = np.concatenate([tone, 0.9 * tone[33:] + 0.05])
    worst, when = find_click(sound(joined))
    assert worst > 10 > 3 * usual
    assert when == pytest.approx(4.0, abs=0.002)
    assert find_click(sound(tone))[0] < 3
