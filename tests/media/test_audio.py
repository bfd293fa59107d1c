"""Reading and writing of audio: positions, levels, lengths, atomic writes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import ffmpeg, names
from tests.media.audio_checks import SAMPLE_RATE, click_time, clicks, drums, tone
from v2m.core.errors import UsageError
from v2m.core.types import Audio
from v2m.media.audio import load, read_track, resample, save


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))", "OSError: [Errno 27]"),  # as a full disk does
        ("signal.setitimer(signal.ITIMER_REAL, 0.05)", "Stop"),
    ],
)
def test_interrupted_save_raises_the_cause_and_leaves_no_file(tmp_path: Path, run: str, message: str) -> None:
    """libsndfile loses errors raised in the callbacks of a file object."""
    code = f"""
import resource, signal, sys
import os
import subprocess
import sys
from pathlib import Path
import numpy as np, soundfile
from v2m.media.audio import save
from v2m.core.types import Audio

class Stop(BaseException): ...
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
sound = Audio(np.zeros((2, 20_000_000), np.float32), 48_000)
{run}
save(sound, Path("x.wav"))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert message in done.stderr.splitlines()[-1]
    assert "callback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "error"), [(".wav", 0), (".flac", 2e-7), (".WAV", 0)])
def test_save_roundtrip(suffix: str, error: float, tmp_path: Path) -> None:
    audio = tone(0.5, 0.7, rate=44_100)
    save(audio, tmp_path / f"take{suffix}")
    samples, rate = soundfile.read(tmp_path / f"take{suffix}", dtype="float32", always_2d=True)
    assert rate == 44_100
    np.testing.assert_allclose(samples.T, audio.samples, atol=error)
    assert names(tmp_path) == [f"take{suffix}"]


def test_wav_keeps_samples_above_full_scale(tmp_path: Path) -> None:
    """A stem may pass full scale where the sum does not."""
    save(tone(0.1, 3.0), tmp_path / "stem.wav")
    assert np.abs(soundfile.read(tmp_path / "stem.wav")[0]).max() > 2.9


def test_failed_save_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"take\.mp3: .*\.wav"):
        save(tone(0.1), tmp_path / "take.mp3")
    (tmp_path / "take.wav").mkdir()
    with pytest.raises(OSError, match="directory"):
        save(tone(0.1), tmp_path / "take.wav")
    assert names(tmp_path) == ["take.wav"]


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_resampling_preserves_time_level_and_length(rate: int, channels: int) -> None:
    """A tone of 1 kHz is the same tone at the other rate, to −90 dB, but for the first and last moment."""
    given = tone(1.7, 0.5, 1000, rate)
    out = resample(Audio(given.samples[:channels], rate), SAMPLE_RATE)
    assert out.samples.shape == (2, round(1.7 * SAMPLE_RATE))
    error = out.samples - tone(1.7, 0.5, 1000).samples
    assert np.abs(error[:, 500:-500]).max() < 0.5 * 10 ** (-90 / 20)


def write_track(path: Path, source: Audio, *options: str, codec: tuple[str, ...] = ("-c:a", "pcm_s16le")) -> Path:
    """A file with `source` as its only stream."""
    raw = path.with_suffix(".src.wav")
    save(source, raw)
    ffmpeg(*options, "-i", raw, *codec, path)
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("pcm.mkv", ("-c:a", "pcm_s16le")),
        ("aac.mp4", ("-c:a", "aac")),
        ("aac.ts", ("-c:a", "aac")),
        ("opus.webm", ("-c:a", "libopus")),
        ("mp3.mkv", ("-c:a", "libmp3lame")),
        ("down.mp4", ("-c:a", "aac", "-ar", "22050")),
    ],
)
def test_track_is_read_at_its_true_position(name: str, codec: tuple[str, ...], tmp_path: Path) -> None:
    """The reader applies the encoder delay that a file declares. 1.44 s is where ffmpeg starts an MPEG-TS."""
    path = write_track(tmp_path / name, clicks(2, [0.6]), codec=codec)
    zero = 1.4 if name.endswith(".ts") else 0.0
    with_priming = 1024 / SAMPLE_RATE if name.endswith(".ts") else 0.0  # it starts the stream, not the sound, at 1.4 s
    out, whole = read_track(path, 0, zero, 2, SAMPLE_RATE)
    assert whole
    assert len(out) == 2 * SAMPLE_RATE
    assert click_time(out.samples[0], 0) == pytest.approx(0.6 + with_priming, abs=0.001)


def test_start_time_and_duration_cut_or_pad(tmp_path: Path) -> None:
    path = write_track(tmp_path / "late.mkv", clicks(1, [0.5]), "-itsoffset", "1.5")
    early, _ = read_track(path, 0, 0, 4, SAMPLE_RATE)
    late, _ = read_track(path, 0, 1.9, 0.5, SAMPLE_RATE)
    assert len(early) == 4 * SAMPLE_RATE
    assert click_time(early.samples[0], 0) == pytest.approx(2.0, abs=0.001)
    assert len(late) == SAMPLE_RATE // 2
    assert click_time(late.samples[0], 0) == pytest.approx(0.1, abs=0.001)


def test_gap_in_the_track_is_silence(tmp_path: Path) -> None:
    """A dropped part is silence: the audio after it keeps its time."""
    graph = "asetpts='N/SR/TB+if(gte(N,48000),2/TB,0)'"
    save(clicks(2, [0.5, 1.5]), tmp_path / "b.wav")
    ffmpeg("-i", tmp_path / "b.wav", "-af", graph, "-c:a", "pcm_s16le", tmp_path / "gap.mkv")
    out, _ = read_track(tmp_path / "gap.mkv", 0, 0, 4, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(out.samples[0]) > 0.4) / SAMPLE_RATE
    assert loud.min() == pytest.approx(0.5, abs=0.01)
    assert loud.max() == pytest.approx(3.5, abs=0.01)


def test_mono_level_is_kept_on_both_sides(tmp_path: Path) -> None:
    mono = Audio(tone(1, 0.5).samples[:1], SAMPLE_RATE)
    out, _ = read_track(write_track(tmp_path / "mono.mkv", mono), 0, 0, 1, SAMPLE_RATE)
    assert np.abs(out.samples).max(axis=1) == pytest.approx([0.5, 0.5], abs=0.001)


def test_damaged_track_is_reported_and_the_rest_read(tmp_path: Path) -> None:
    sound = clicks(4, [3.5]).samples + 0.2 * drums(4).samples
    source = Audio(sound.astype(np.float32), SAMPLE_RATE)
    path = write_track(tmp_path / "whole.mp4", source, codec=("-c:a", "aac"))
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 2000
    data[start : start + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    out, whole = read_track(path, 0, 0, 4, SAMPLE_RATE)
    assert not whole
    assert click_time(out.samples[0][3 * SAMPLE_RATE :], 3) == pytest.approx(3.5, abs=0.001)


@pytest.mark.parametrize("name", ["tone.wav", "tone.mp3", "tone.flac", "tone.m4a", "tone.ogg", "film.mp4"])
def test_load_reads_any_audio_file_up_to_the_duration(name: str, tmp_path: Path) -> None:
    picture = ["-f", "lavfi", "-i", "color=s=64x64:d=2"] if name == "film.mp4" else []
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=2:sample_rate=44100", *picture, tmp_path / name)
    audio = load(tmp_path / name, 16_000, 1.5)
    assert audio.samples.shape == (2, 24_000)
    spectrum = np.abs(np.fft.rfft(audio.samples[0] * np.hanning(24_000)))
    assert np.argmax(spectrum) * 16_000 / 24_000 == pytest.approx(440, abs=1)
    assert len(load(tmp_path / name, 16_000, 30.0)) == pytest.approx(32_000, abs=1_600)


def test_matroska_is_as_long_as_its_sound(tmp_path: Path) -> None:
    """Its streams state no duration; read to the limit, silence would follow."""
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=2:sample_rate=44100", tmp_path / "tone.mka")
    assert len(load(tmp_path / "tone.mka", 16_000, 10.0)) == pytest.approx(32_000, abs=1_600)


def test_load_errors_name_the_problem(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("not a sound")
    (tmp_path / "list.mp3").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64:d=1", tmp_path / "silent_film.mp4")
    ffmpeg("-f", "lavfi", "-i", "anullsrc=d=1", tmp_path / "nothing.wav")
    message = {}
    for name in ("gone.wav", "notes.wav", "list.mp3", "silent_film.mp4", "nothing.wav"):
        with pytest.raises(UsageError, match=name) as error:
            load(tmp_path / name, 16_000, 30.0)
        message[name] = str(error.value)
    assert "no such sound file" in message["gone.wav"]
    assert "holds no sound" in message["silent_film.mp4"]
    assert "is silent" in message["nothing.wav"]


@pytest.mark.parametrize("factor", [0.999, 1.0002, 1.001])
def test_audio_of_a_drifting_clock_is_in_time_without_holes_or_jumps(tmp_path: Path, factor: float) -> None:
    """A sound card whose clock differs from the camera's; Matroska rounds the time stamps to 1 ms."""
    path, seconds = tmp_path / "drift.mkv", 30.0
    clock = f"setts=pts=PTS*{factor}:dts=DTS*{factor}"
    ffmpeg("-f", "lavfi", "-i", f"sine=440:r=48000:d={seconds}", "-c:a", "aac", "-bsf:a", clock, path)
    samples = load(path, 48000, seconds * factor - 0.1).samples[0]
    times = np.arange(len(samples)) / 48000
    window = np.hanning(1200) / np.hanning(1200).sum()
    tone = np.convolve(samples * np.exp(-2j * np.pi * 440 / factor * times), window, "valid")[::240]
    lag = np.unwrap(np.angle(tone)) / (2 * np.pi * 440)
    assert np.ptp(lag) < 0.003
    assert np.abs(np.diff(lag)).max() < 0.0001  # in 5 ms
    assert np.abs(tone).min() > 0.9 * np.abs(tone).max()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_same_audio_is_written_as_the_same_bytes_at_another_time(tmp_path: Path, suffix: str) -> None:
    """libsndfile writes the clock into a WAV file; two seconds must not make a difference."""
    audio = tone(0.1)
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    save(audio, first)
    begin = int(time.time())
    while int(time.time()) == begin:
        time.sleep(0.05)
    save(audio, second)
    assert first.read_bytes() == second.read_bytes()
    assert np.array_equal(soundfile.read(first)[0], soundfile.read(second)[0])
