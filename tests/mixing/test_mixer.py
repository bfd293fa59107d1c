"""Config, balance and loudness of finished files, by an independent meter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ffmpeg
from tests.media.audio_checks import SAMPLE_RATE, bursts, decode_track, drums, ebur128, stereo, tone
from v2m.analysis.loudness import integrated_loudness
from v2m.core.errors import UsageError
from v2m.core.types import Audio, Video
from v2m.media import video as videos
from v2m.media.audio import save
from v2m.mixing.mixdown import DuckingConfig
from v2m.mixing.mixer import MixConfig, mix

SECONDS = 6
PICTURE = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={SECONDS}")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
SILENCE = stereo(np.zeros(SECONDS * SAMPLE_RATE))


def clip(folder: Path, sound: Audio | None = None, name: str = "clip.mov") -> Video:
    """A video whose own sound is exactly `sound` (PCM), or none."""
    if sound is None:
        ffmpeg(*PICTURE, *H264, folder / name)
    else:
        save(sound, folder / "own.wav")
        ffmpeg(*PICTURE, "-i", folder / "own.wav", *H264, "-c:a", "pcm_s24le", folder / name)
    return videos.open(folder / name)


def chord(seconds: float = SECONDS, level: float = 0.1) -> Audio:
    """Music that is easy to find again: three tones, all below 1 kHz."""
    return Audio(np.sum([tone(seconds, level, hertz).samples for hertz in (220, 277, 330)], axis=0), SAMPLE_RATE)


def level(samples: np.ndarray, start: float, end: float) -> float:
    return float(
        20
        * np.log10(np.sqrt(np.mean(np.square(samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]))) + 1e-9)
    )


MUSIC = {
    "loud": chord(level=0.3),
    "quiet": chord(level=0.001),
    "peaky": drums(SECONDS),
    "full scale noise": stereo(np.random.default_rng(0).uniform(-1, 1, SECONDS * SAMPLE_RATE)),
    "mono at 44.1 kHz": Audio(drums(SECONDS, 44_100).samples[:1], 44_100),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("name", MUSIC)
def test_file_has_the_requested_loudness_and_peaks(name: str, suffix: str, tmp_path: Path) -> None:
    """After the codec, by ffmpeg's meter: within 1 LU of the target, true peak at most −1 dBTP."""
    video = clip(tmp_path, name=f"clip{suffix}")
    report = mix(video, MUSIC[name], tmp_path / f"out{suffix}")
    loud, peak = ebur128(tmp_path / f"out{suffix}")
    assert loud == pytest.approx(-14, abs=1)
    assert peak <= -1.0
    assert report.loudness == pytest.approx(loud, abs=0.15)
    assert report.true_peak == pytest.approx(peak, abs=0.7)  # the meters differ on noise up to 24 kHz
    assert report.warnings == ()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["num_audio_tracks"] == 1


def test_overshooting_encoder_gets_a_lower_level(tmp_path: Path) -> None:
    """Bursts of other noise left and right, limited by 10 dB and more: AAC adds 1 dB to the peaks at first."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    noise = 0.3 * np.random.default_rng(5).standard_normal((2, len(time))) * np.exp(-(time % 0.25) * 40)
    report = mix(
        clip(tmp_path), Audio(noise.astype(np.float32), SAMPLE_RATE), tmp_path / "out.mov", MixConfig(lufs=-12)
    )
    assert ebur128(tmp_path / "out.mov")[1] <= -1.0
    assert [warning.split(":")[0] for warning in report.warnings] == ["loudness_not_reached"]


@pytest.mark.parametrize(("lufs", "true_peak"), [(-23.0, -3.0), (-16.0, -6.0), (-9.0, -1.0)])
def test_other_loudness_targets(lufs: float, true_peak: float, tmp_path: Path) -> None:
    mix(clip(tmp_path), MUSIC["full scale noise"], tmp_path / "out.mov", MixConfig(lufs=lufs, true_peak=true_peak))
    loud, peak = ebur128(tmp_path / "out.mov")
    assert loud == pytest.approx(lufs, abs=1)
    assert peak <= true_peak


def test_level_is_kept_without_a_target(tmp_path: Path) -> None:
    mix(clip(tmp_path), tone(SECONDS, 0.05), tmp_path / "out.mov", MixConfig(lufs=None, music_gain=-6))
    assert level(decode_track(tmp_path / "out.mov")[0], 1, 5) == pytest.approx(
        20 * np.log10(0.05 / np.sqrt(2)) - 6, abs=0.1
    )


@pytest.mark.parametrize("seconds", [SECONDS, 0.2])
def test_silent_music_stays_silent(seconds: float, tmp_path: Path) -> None:
    music = Audio(np.zeros((2, round(seconds * SAMPLE_RATE)), np.float32), SAMPLE_RATE)
    report = mix(clip(tmp_path), music, tmp_path / "out.mov")
    assert ebur128(tmp_path / "out.mov")[1] == -np.inf
    assert report.loudness is None
    assert report.true_peak is None
    assert "silent_music" in " ".join(report.warnings)
    json.dumps(report.to_dict(), allow_nan=False)


def test_music_too_short_to_measure_keeps_its_level(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.32", *H264, tmp_path / "moment.avi")
    report = mix(videos.open(tmp_path / "moment.avi"), tone(0.32, 0.1), tmp_path / "out.avi")
    assert [warning.split(":")[0] for warning in report.warnings] == ["silent_music"]
    samples, start = decode_track(tmp_path / "out.avi")
    assert level(samples, 0.1 - start, 0.2 - start) == pytest.approx(-23, abs=0.5)


@pytest.mark.parametrize(
    ("music", "said"),
    [
        (stereo(np.array([0, np.nan])), "NaN"),
        (stereo(np.array([0, np.inf])), "infinite"),
        (Audio(np.zeros((2, 0), np.float32), SAMPLE_RATE), "empty"),
        (Audio(np.zeros((3, 9), np.float32), SAMPLE_RATE), "stereo"),
    ],
)
def test_invalid_music_is_refused(music: Audio, said: str, tmp_path: Path) -> None:
    video = clip(tmp_path)
    with pytest.raises(ValueError, match=said):
        mix(video, music, tmp_path / "out.mov")
    assert not (tmp_path / "out.mov").exists()


def test_music_is_cut_or_padded_and_faded(tmp_path: Path) -> None:
    video = clip(tmp_path)
    mix(video, chord(9), tmp_path / "long.mov", MixConfig(fade_in=1.0, fade_out=2.0))
    samples, start = decode_track(tmp_path / "long.mov")
    assert abs(start + len(samples) / SAMPLE_RATE - SECONDS) < 1024 / SAMPLE_RATE
    body = level(samples, 1.5, 3.5)
    assert level(samples, 0.45, 0.55) == pytest.approx(body - 6, abs=1)
    assert level(samples, 4.9, 5.1) == pytest.approx(body - 6, abs=1)
    assert level(samples, 5.95, 6.0) < body - 40
    report = mix(video, chord(4), tmp_path / "short.mov")
    assert report.warnings == ("short_music: the music ends 2.00 s before its part of the video does",)
    assert level(decode_track(tmp_path / "short.mov")[0], 4.1, 5.9) < -80


@pytest.mark.parametrize("gain", [0, -10])
def test_keep_sums_music_as_loud_as_the_clip(gain: float, tmp_path: Path) -> None:
    """A clip at 3 kHz and music below 400 Hz, separated by their spectra."""
    own = tone(SECONDS, 0.2, 3000)
    report = mix(clip(tmp_path, own), chord(level=0.01), tmp_path / "out.mov", MixConfig("keep", music_gain=gain))
    samples, _ = decode_track(tmp_path / "out.mov")
    spectrum = np.abs(np.fft.rfft(samples[SAMPLE_RATE : 5 * SAMPLE_RATE] * np.hanning(4 * SAMPLE_RATE)))
    theirs, ours = spectrum[4 * 3000 - 40 : 4 * 3000 + 40], spectrum[: 4 * 500]
    # K-weighting hears 3 kHz some 3.3 dB louder than 300 Hz
    ratio = 10 * np.log10(np.square(ours).sum() / np.square(theirs).sum())
    assert ratio == pytest.approx(3.3 + gain, abs=1)
    assert ebur128(tmp_path / "out.mov")[0] == pytest.approx(-14, abs=0.5)
    assert report.original_loudness == pytest.approx(integrated_loudness(own), abs=0.1)
    assert report.num_audio_tracks == 2


def music_alone(path: Path) -> np.ndarray:
    """The chord without the noise around it: the band from 200 to 350 Hz."""
    samples, _ = decode_track(path)
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return np.fft.irfft(np.where((hertz > 200) & (hertz < 350), spectrum, 0), len(samples))


def test_duck_lowers_the_music_under_speech_by_the_depth(tmp_path: Path) -> None:
    """At least 8 dB lower under a speech-like burst, back within a second, and no louder track left unsaid."""
    speech = bursts(SECONDS, [(2.5, 3.5)], 0.1)
    report = mix(clip(tmp_path, speech), chord(), tmp_path / "out.mov", MixConfig("duck"))
    music = music_alone(tmp_path / "out.mov")
    before, under, after = level(music, 1, 2.3), level(music, 2.6, 3.4), level(music, 4.5, 5.9)
    assert 8 <= before - under <= 13
    assert after == pytest.approx(before, abs=0.5)
    assert report.ducked_share == pytest.approx(1 / SECONDS, abs=0.03)
    mix(clip(tmp_path, speech), chord(), tmp_path / "less.mov", MixConfig("duck", duck=DuckingConfig(depth=-4)))
    less = music_alone(tmp_path / "less.mov")
    assert level(less, 1, 2.3) - level(less, 2.6, 3.4) == pytest.approx(4, abs=1)


def test_faint_clip_does_not_lower_the_music_to_its_hiss(tmp_path: Path) -> None:
    hiss = bursts(SECONDS, [], 0, 0.0003)
    mix(clip(tmp_path, hiss), chord(), tmp_path / "out.mov", MixConfig("duck"))
    own, music = decode_track(tmp_path / "out.mov")[0], music_alone(tmp_path / "out.mov")
    assert level(music, 1, 5) - level(own - music[: len(own)], 1, 5) > 20


@pytest.mark.parametrize("original", ["keep", "duck"])
def test_clip_without_audio_gets_the_music_alone(original: str, tmp_path: Path) -> None:
    report = mix(clip(tmp_path), chord(), tmp_path / "out.mov", MixConfig(original))  # pyright: ignore[reportArgumentType]
    assert report.num_audio_tracks == 1
    assert ebur128(tmp_path / "out.mov")[0] == pytest.approx(-14, abs=0.5)


def test_music_in_a_range_leaves_the_rest_unchanged(tmp_path: Path) -> None:
    """Outside the span the clip's own samples; inside only music at the target; no jump at the joins."""
    own = tone(SECONDS, 0.02, 3000)
    report = mix(clip(tmp_path, own, "clip.avi"), chord(), tmp_path / "out.avi", MixConfig(start=2.0, end=4.0))
    samples, start = decode_track(tmp_path / "out.avi")
    samples = samples[-round(start * SAMPLE_RATE) :]
    for low, high in ((0, 2), (4, 5.9)):
        part = slice(low * SAMPLE_RATE, round(high * SAMPLE_RATE))
        np.testing.assert_allclose(samples[part], own.samples[0, part], atol=1e-4)
    inside = np.abs(
        np.fft.rfft(samples[round(2.1 * SAMPLE_RATE) : round(3.9 * SAMPLE_RATE)] * np.hanning(round(1.8 * SAMPLE_RATE)))
    )
    assert inside[round(1.8 * 2900) : round(1.8 * 3100)].max() < inside.max() * 1e-3
    assert integrated_loudness(stereo(samples[2 * SAMPLE_RATE : 4 * SAMPLE_RATE])) == pytest.approx(-14, abs=0.5)
    assert np.abs(np.diff(samples)).max() < 0.15
    assert report.range_loudness == pytest.approx(-14, abs=0.5)
    assert report.loudness == pytest.approx(ebur128(tmp_path / "out.avi")[0], abs=0.2) != report.range_loudness
    assert report.original_loudness == pytest.approx(integrated_loudness(own), abs=0.1)


def test_music_in_a_range_below_its_target_is_a_warning(tmp_path: Path) -> None:
    """Not the loudness of the whole file, which the sound around it decides."""
    low = MixConfig(start=2.0, end=4.0, true_peak=-20.0, lufs=-5.0)
    report = mix(clip(tmp_path, tone(SECONDS, 0.9, 3000)), drums(SECONDS), tmp_path / "out.mov", low)
    [warning] = report.warnings
    assert warning == f"loudness_not_reached: {report.range_loudness:.1f} LUFS instead of -5"


def test_range_in_a_clip_without_audio_is_silent_around_the_music(tmp_path: Path) -> None:
    mix(clip(tmp_path, None, "clip.avi"), chord(), tmp_path / "out.avi", MixConfig(start=2.0, end=4.0))
    samples, start = decode_track(tmp_path / "out.avi")
    samples = samples[-round(start * SAMPLE_RATE) :]
    assert level(samples, 0, 1.99) < -80
    assert level(samples, 4.01, 6) < -80
    assert ebur128(tmp_path / "out.avi")[0] == pytest.approx(-14, abs=0.5)


def test_all_problems_of_the_config_are_reported_together() -> None:
    with pytest.raises(UsageError) as raised:
        MixConfig(
            original="loud",  # pyright: ignore[reportArgumentType]
            lufs=-3,
            true_peak=1,
            fade_in=-1,
            start=5,
            end=4,
            duck=DuckingConfig(depth=3, attack=-1),
        )
    for words in ("'loud'", "lufs -3", "true_peak 1", "fade_in -1", "end 4", "duck.depth 3", "duck.attack -1"):
        assert words in str(raised.value)
    for name in ("lufs", "true_peak", "music_gain", "fade_out", "start", "end"):
        with pytest.raises(UsageError, match=name):
            replace(MixConfig(), **{name: float("nan")})


def test_range_outside_the_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"start 7 s lies outside the video \(0 to 6\.00 s\)"):
        mix(clip(tmp_path), chord(), tmp_path / "out.mov", MixConfig(start=7))
    with pytest.raises(UsageError, match="end 1e-06 s must lie a sample or more after start 0 s"):
        mix(clip(tmp_path), chord(), tmp_path / "out.mov", MixConfig(end=1e-6))


def test_flags_have_help() -> None:
    """Every setting has a line in the docstring, which is its `--help`."""
    from dataclasses import fields

    for kind in (MixConfig, DuckingConfig):
        assert kind.__doc__ is not None
        for field in fields(kind):
            assert f"        {field.name}: " in kind.__doc__
