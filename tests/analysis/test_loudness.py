"""Loudness against ffmpeg's ebur128 and the compliance signals; true peak against known amplitudes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.media.audio_checks import bursts, drums, ebur128, stereo, tone
from v2m.analysis import loudness
from v2m.analysis.loudness import integrated_loudness, peak_envelope, true_peak
from v2m.core.types import Audio

SIGNALS = {
    "tone": tone(6),
    "bass": tone(6, 0.5, 50),
    "treble at 44.1 kHz": tone(6, 0.3, 9000, 44_100),
    "drums": drums(6),
    "quiet drums at 32 kHz": Audio(drums(6, 32_000).samples * np.float32(0.01), 32_000),
    "speech with long pauses": bursts(12, [(1, 2), (6, 7.3)], 0.2, 0.0005),
    "one side only": Audio(tone(6).samples * np.array([[1], [0]], np.float32), 48_000),
    "mono": Audio(drums(6).samples[:1], 48_000),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_loudness_and_peak_match_ebur128(name: str, tmp_path: Path) -> None:
    """Within 0.1 LU, ebur128's own display being rounded to that."""
    signal = SIGNALS[name]
    soundfile.write(tmp_path / "signal.wav", signal.samples.T, signal.sample_rate, subtype="FLOAT")
    assert integrated_loudness(signal) == pytest.approx(ebur128(tmp_path / "signal.wav")[0], abs=0.1)


def test_full_scale_tone_in_one_channel_is_minus_3_01_lufs() -> None:
    """The calibration that BS.1770-4 states: 997 Hz, 0 dBFS, left only."""
    assert integrated_loudness(Audio(tone(3, 1.0).samples[:1], 48_000)) == pytest.approx(-3.01, abs=0.02)


@pytest.mark.parametrize("levels", [(-36, -23, -36), (-72, -36, -23, -36, -72)])
def test_gates_leave_out_quiet_blocks(levels: tuple[int, ...]) -> None:
    """EBU Tech 3341, minimum requirements 3 and 4, shortened: quiet ends do not count, −23 LUFS remains."""
    parts = [tone(20 if level == -23 else 5, 10 ** (level / 20), 1000).samples for level in levels]
    assert integrated_loudness(Audio(np.concatenate(parts, axis=1), 48_000)) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("samples", [np.zeros((2, 48_000)), tone(0.39).samples, np.zeros((1, 0))])
def test_silence_and_less_than_one_block_have_no_loudness(samples: np.ndarray) -> None:
    assert integrated_loudness(Audio(samples.astype(np.float32), 48_000)) == -np.inf


def test_true_peak_between_the_samples() -> None:
    """A tone at a quarter of the rate whose samples all miss its crests by 45°: sample peak −3 dB, true peak 0 dB."""
    quarter = np.sin(np.pi / 2 * np.arange(48_000) + np.pi / 4) * np.hanning(48_000)
    assert np.abs(quarter).max() < 0.708
    assert true_peak(stereo(quarter)) == pytest.approx(0, abs=0.05)
    assert true_peak(stereo(np.zeros(100))) == -np.inf


def test_peak_envelope_locates_the_peaks() -> None:
    """Also across the seams of the blocks in which it is computed."""
    samples = np.zeros((2, 50_000), np.float32)
    for k, at in enumerate((0, 6_143, 6_144, 31_000, 49_999)):
        samples[k % 2, at] = 0.5
    envelope = peak_envelope(samples, 32)
    assert len(envelope) == 1563
    assert set(np.flatnonzero(envelope > 0.49)) == {0, 191, 192, 968, 1562}


@pytest.mark.parametrize("count", [1, 40_000, 57_344, 300_001])
def test_blocks_in_threads_are_those_of_one_after_the_other(count: int) -> None:
    """The plain form: each block cut out of the padded samples, one after the other."""
    samples = np.random.default_rng(count).normal(0, 0.1, (2, count)).astype(np.float32)
    step, lead, size = 6144, loudness.PEAK_MARGIN, loudness.PEAK_BLOCK
    inner = slice(4 * lead, 4 * (lead + step))
    padded = np.pad(samples, ((0, 0), (lead, size + step)))
    blocks = [padded[:, start : start + size] for start in range(0, count, step)]
    peaks = [np.abs(4 * np.fft.irfft(np.fft.rfft(block), 4 * size)[:, inner]).max(0) for block in blocks]
    expected = np.concatenate(peaks).reshape(-1, 4 * 32).max(1)[: -(-count // 32)]
    assert (peak_envelope(samples, 32) == expected).all()
