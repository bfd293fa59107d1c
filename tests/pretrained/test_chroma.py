"""Chroma of melodies with known notes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from v2m.core.errors import DependencyError
from v2m.core.types import Audio
from v2m.pretrained.chroma import CONFIG_FILE, Chroma

SCALE = (0, 2, 4, 5, 7, 9, 11, 0)  # C major
NOTE = 3.75  # seconds: 8 of them are 30
RATE = 32000


@pytest.fixture(scope="module")
def chroma() -> Chroma:
    return Chroma.load()


def tune(notes: tuple[int, ...], rate: int = RATE, channels: int = 1) -> Audio:
    """Each note with two overtones, from the C of 261.6 Hz on."""
    times = np.arange(int(NOTE * rate)) / rate
    sounds = []
    for note in notes:
        pitch = 440 * 2 ** ((note - 9) / 12)
        sounds.append(sum(np.sin(2 * np.pi * k * pitch * times) / k**2 for k in (1, 2, 3)))
    wave = 0.3 * np.concatenate(sounds).astype(np.float32)
    return Audio(np.tile(wave, (channels, 1)), rate)


def expected(notes: tuple[int, ...]) -> list[int]:
    """The note that sounds in the middle of each frame."""
    return [notes[min(int(frame * 4096 / RATE / NOTE), len(notes) - 1)] for frame in range(235)]


@pytest.mark.parametrize(("rate", "channels"), [(32000, 1), (44100, 2)])
def test_chroma_of_a_scale_has_each_note(chroma: Chroma, rate: int, channels: int) -> None:
    result = chroma.extract(tune(SCALE, rate, channels))
    assert result.shape == (1, chroma.num_frames, chroma.num_classes) == (1, 235, 12)
    assert torch.equal(result.sum(dim=-1), torch.ones(1, 235))
    assert set(result.unique().tolist()) == {0.0, 1.0}
    wrong = [at for at, (a, b) in enumerate(zip(result[0].argmax(-1).tolist(), expected(SCALE), strict=True)) if a != b]
    near = {round(k * NOTE * RATE / 4096) for k in range(9)}
    assert all(min(abs(at - join) for join in near) <= 2 for at in wrong), f"but at the joins: {wrong}"
    assert len(wrong) <= 16


def test_batch_matches_single_melodies_and_short_ones_are_repeated(chroma: Chroma) -> None:
    long, short = tune(SCALE), tune((7, 4))
    both = chroma.extract(long, short)
    assert torch.equal(both[:1], chroma.extract(long))
    once = 1 + len(short.samples[0]) // 4096
    assert torch.equal(both[1, once : 2 * once], both[1, :once])
    assert both[1, 5].argmax() == 7
    assert both[1, once - 5].argmax() == 4


def test_audio_beyond_30_seconds_is_ignored(chroma: Chroma) -> None:
    longer = tune((*SCALE, 6, 6, 6, 6))
    assert not chroma.extract(longer)[0, :, 6].any()


def test_very_short_and_silent_audio_are_accepted(chroma: Chroma) -> None:
    short = Audio(tune((9,)).samples[:, :500], RATE)
    assert chroma.extract(short).shape == (1, 235, 12)
    silence = chroma.extract(Audio(np.zeros((1, 30 * RATE), np.float32), RATE))
    assert torch.equal(silence, chroma.null())
    assert chroma.null(3).shape == (3, 235, 12)


def test_settings_are_read_from_a_chroma_extractor_only(tmp_path: Path) -> None:
    def written(**settings: object) -> Chroma:
        (tmp_path / CONFIG_FILE).write_text(json.dumps(settings))
        return Chroma.load(tmp_path)

    shorter = written(feature_extractor_type="MusicgenMelodyFeatureExtractor", chunk_length=10, sampling_rate=16000)
    assert (shorter.num_frames, shorter.sample_rate) == (40, 16000)
    codecs = written(feature_extractor_type="EncodecFeatureExtractor", sampling_rate=16000)
    assert (codecs.num_frames, codecs.sample_rate) == (235, 32000)
    with pytest.raises(DependencyError, match="makes no chroma"):
        written(feature_extractor_type="MusicgenMelodyFeatureExtractor", hop_length="long")
