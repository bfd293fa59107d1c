"""Memory of a long job: audio goes through it in chunks, and the files are those of a job in memory."""

from __future__ import annotations

import mmap
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import ffmpeg
from tests.media.audio_checks import tone
from v2m.core import mapped_array
from v2m.core.types import Audio
from v2m.media import video
from v2m.media.audio import save
from v2m.mixing.mixdown import MixConfig, mix_tracks
from v2m.pipeline.result import Extras
from v2m.pipeline.score import score_video

pytestmark = pytest.mark.skipif(
    not hasattr(mmap, "MADV_DONTNEED") or not hasattr(os, "posix_fallocate"),
    reason="arrays stay in memory where the system cannot release pages of a file",
)
SECONDS, RATE = 60.0, 48_000
ARRAY_BYTES = int(SECONDS * RATE) * 2 * 4


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_array, "MIN_BYTES", 1)
    monkeypatch.setattr(mapped_array, "CHUNK", 1 << 16)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that Python and NumPy allocate at once, files that are mapped left out."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("all_mapped")
def test_writing_a_file_takes_less_memory_than_the_audio(tmp_path: Path) -> None:
    audio = Audio(mapped_array.zeros((2, int(SECONDS * RATE))), RATE)
    assert peak_bytes(lambda: save(audio, tmp_path / "a.wav")) < ARRAY_BYTES / 4


@pytest.mark.usefixtures("all_mapped")
def test_mix_takes_less_memory_than_one_track(tmp_path: Path) -> None:
    picture = ["-f", "lavfi", "-i", f"color=s=64x64:r=2:d={SECONDS:g}"]
    sound = ["-f", "lavfi", "-i", f"sine=frequency=300:sample_rate={RATE}:duration={SECONDS:g}"]
    ffmpeg(*picture, *sound, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", tmp_path / "long.mp4")
    clip, music = video.open(tmp_path / "long.mp4"), tone(SECONDS, 0.3, rate=RATE)
    assert peak_bytes(lambda: mix_tracks(clip, music, MixConfig("duck"))) < ARRAY_BYTES


def test_mapped_arrays_give_the_files_of_those_in_memory(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extras, mix = Extras(stems=True, wav=True, report=True, midi=True), MixConfig("duck")
    for name, smallest, chunk in (("memory", 1 << 40, 1 << 20), ("mapped", 1, 1 << 12)):
        monkeypatch.setattr(mapped_array, "MIN_BYTES", smallest)
        monkeypatch.setattr(mapped_array, "CHUNK", chunk)
        (tmp_path / name).mkdir()
        score_video(media / "cuts.mp4", tmp_path / name / "a.mp4", extras=extras, mix=mix)
    paths = [path for path in (tmp_path / "memory").rglob("*") if path.is_file() and path.suffix != ".json"]
    assert {path.suffix for path in paths} == {".mp4", ".mid", ".png", ".wav"}
    for path in paths:
        other = tmp_path / "mapped" / path.relative_to(tmp_path / "memory")
        if path.suffix == ".wav":
            assert np.array_equal(soundfile.read(path)[0], soundfile.read(other)[0])
        else:
            assert path.read_bytes() == other.read_bytes(), path.name
