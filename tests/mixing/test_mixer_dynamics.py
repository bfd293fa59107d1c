"""Limiter, mastering and ducking on signals in memory."""

from __future__ import annotations

import numpy as np
import pytest

from tests.media.audio_checks import SAMPLE_RATE, bursts, drums, stereo, tone
from v2m.analysis.loudness import integrated_loudness, peak_envelope, true_peak
from v2m.core.audio_ops import HOP, apply_gain
from v2m.core.types import Audio
from v2m.mixing.mastering import Levels, limiter_gain, slew_limit
from v2m.mixing.mixdown import DuckingConfig, detect_foreground, ducking_gain


def apply_limiter(audio: Audio, ceiling: float) -> Audio:
    out = Audio(audio.samples.copy(), audio.sample_rate)
    apply_gain(out.samples, limiter_gain(peak_envelope(out.samples, HOP), ceiling))
    return out


@pytest.mark.parametrize("seed", range(4))
def test_no_peak_passes_the_limiter(seed: int) -> None:
    """Random spikes, steps and tones of up to +20 dB: the true peak ends under the ceiling, within 0.05 dB."""
    random = np.random.default_rng(seed)
    wild = random.standard_normal(2 * SAMPLE_RATE) * np.repeat(random.exponential(0.3, 200), 2 * SAMPLE_RATE // 200)
    wild[random.integers(0, len(wild), 20)] += random.uniform(-10, 10, 20)
    assert true_peak(stereo(wild)) > 6
    assert true_peak(apply_limiter(stereo(wild), -1.0)) <= -0.95


def test_limiter_leaves_low_peaks_unchanged() -> None:
    quiet = tone(1, 0.5)
    np.testing.assert_array_equal(apply_limiter(quiet, -1.0).samples, quiet.samples)


def test_limiter_attacks_before_the_peak_and_releases_after_it() -> None:
    """Back at full level 0.2 s after a peak 6 dB over, untouched 20 ms before it."""
    signal = np.full(SAMPLE_RATE, 0.1)
    signal[SAMPLE_RATE // 2] = 2.0
    gain = apply_limiter(stereo(signal), 0.0).samples[0] / signal
    assert gain[SAMPLE_RATE // 2] == pytest.approx(0.5, abs=0.03)
    assert gain[: SAMPLE_RATE // 2 - SAMPLE_RATE // 50].min() == pytest.approx(1, abs=1e-6)
    assert gain[SAMPLE_RATE // 2 + SAMPLE_RATE // 5 :].min() == pytest.approx(1, abs=1e-6)
    assert np.abs(np.diff(np.delete(gain, SAMPLE_RATE // 2))).max() < 0.01


def test_slew_limit_is_the_highest_curve_within_the_slopes() -> None:
    level = np.array([0.0, 0, 0, -6, 0, 0, 0, 0])
    np.testing.assert_allclose(slew_limit(level, rise=2, fall=3), [0, 0, -3, -6, -4, -2, 0, 0])


@pytest.mark.parametrize("pieces", [1, 7])
def test_gain_in_chunks_equals_gain_at_once(pieces: int) -> None:
    """The gain is applied in blocks while ffmpeg reads, without discontinuities between them."""
    signal = np.ones((2, 40_000), np.float32)
    curve = np.random.default_rng(0).uniform(0, 1, 1250)
    whole = signal.copy()
    apply_gain(whole, curve)
    for part, start in ((signal[:, k : k + 40_000 // pieces], k) for k in range(0, 40_000, 40_000 // pieces)):
        apply_gain(part, curve, start)
    np.testing.assert_allclose(signal, whole, atol=1e-6)
    assert signal[0, 16] == pytest.approx(63 / 64 * curve[0] + 1 / 64 * curve[1])


@pytest.mark.parametrize(
    "signal",
    [tone(3, 0.9), tone(3, 0.001), drums(3), bursts(6, [(1, 2)], 0.2)],
    ids=["loud", "quiet", "peaky", "burst"],
)
@pytest.mark.parametrize("target", [-14.0, -23.0])
def test_mastering_reaches_the_loudness_under_the_ceiling(signal: Audio, target: float) -> None:
    """The predicted loudness is the resulting one."""
    mastering = Levels.from_audio(signal).master(target, -1.0)
    out = Audio(signal.samples.copy(), SAMPLE_RATE)
    mastering.apply(out)
    assert integrated_loudness(out) == pytest.approx(target, abs=0.2)
    assert mastering.loudness == pytest.approx(integrated_loudness(out), abs=0.1)
    assert true_peak(out) <= -0.95


def test_mastering_stops_at_the_maximum_drive() -> None:
    """One click in silence cannot be made loud: the drive stops 24 dB above the distance to the target."""
    click = np.zeros(SAMPLE_RATE)
    click[SAMPLE_RATE // 2] = 1.0
    levels = Levels.from_audio(stereo(click))
    mastering = levels.master(-5.0, -1.0)
    assert mastering.gain <= -5.0 - levels.loudness() + 24.001
    assert mastering.loudness < -6


def test_mastering_without_a_target_changes_only_peaks() -> None:
    assert Levels.from_audio(tone(2, 0.1)).master(None, -1.0).gain == 0
    assert Levels.from_audio(tone(2, 0.1)).master(None, -30.0).max_reduction == pytest.approx(10.1, abs=0.2)


def value_at(curve: np.ndarray, second: float) -> float:
    return float(curve[round(second * 100)])


def test_music_is_ducked_under_speech_and_recovers() -> None:
    """At least 8 dB under the whole of a phrase and its pauses, there before it begins, back within a second."""
    phrases = bursts(12, [(3.0, 3.9), (4.3, 5.5), (8.0, 9.0)], 0.2, 0.001)
    curve = ducking_gain(detect_foreground(phrases), DuckingConfig())
    assert curve[:270].max() == curve[:270].min() == 0
    assert curve[296:550].max() == -12
    assert value_at(curve, 6.5) == value_at(curve, 7.5) == 0
    assert curve[797:900].max() == -12
    assert value_at(curve, 10.0) == 0


def test_ducking_ramps_take_their_attack_and_release() -> None:
    active = np.zeros(400, bool)
    active[200:250] = True
    curve = ducking_gain(active, DuckingConfig(depth=-20, pre_roll=0.2, attack=0.1, release=1.0))
    assert value_at(curve, 1.79) == 0 > value_at(curve, 1.81)
    assert value_at(curve, 1.9) == -20 == value_at(curve, 2.49)
    assert value_at(curve, 3.48) < -0.1
    assert value_at(curve, 3.5) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("level", [0.0005, 0.005, 0.3], ids=["hiss", "wind", "traffic"])
def test_steady_sound_does_not_duck(level: float) -> None:
    assert not detect_foreground(bursts(20, [], 0, level)).any()


def test_voice_over_traffic_ducks() -> None:
    active = detect_foreground(bursts(20, [(8, 10)], 0.6, 0.05))
    assert active[805:995].all()
    assert not active[:780].any()
    assert not active[1020:].any()


def test_click_does_not_duck() -> None:
    assert not detect_foreground(bursts(6, [(3, 3.02)], 0.2, 0.001)).any()


def test_silence_does_not_duck() -> None:
    assert not detect_foreground(stereo(np.zeros(3 * SAMPLE_RATE))).any()
    assert not detect_foreground(stereo(np.zeros(100))).any()
