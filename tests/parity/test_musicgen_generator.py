"""From words to sound: the generator writes what transformers' MusicGen writes, on the same checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    MusicgenForConditionalGeneration,
    MusicgenMelodyFeatureExtractor,
    MusicgenMelodyForConditionalGeneration,
    T5Tokenizer,
)

from tests.fixtures.tiny import musicgen as tiny
from tests.sketch.stub_videos import video
from v2m.core.prompts import build_prompt
from v2m.core.types import Audio, Controls, SamplingConfig, Tags
from v2m.generators.musicgen import MusicGen
from v2m.media import audio

FRAMES = 60  # at 50 a second
TAGS = Tags(genres=["ambient"], instruments=["piano", "strings"], tempo=72)
LIKELIEST = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scale of 1.5 s, alike on both sides."""
    path = tmp_path_factory.mktemp("tune") / "tune.wav"
    times = np.arange(4000) / tiny.SAMPLE_RATE
    wave = np.concatenate([0.5 * np.sin(2 * np.pi * 220 * 2 ** (n / 12) * times) for n in range(12)])
    audio.save(Audio(np.stack([wave, wave]).astype(np.float32), tiny.SAMPLE_RATE), path)
    return path


def theirs(folder: Path, tune: Path | None) -> NDArray[np.float32]:
    """transformers' own: a sequence of `FRAMES` frames and the 3 steps by which the last codebook is late."""
    melody = json.loads((folder / "config.json").read_text())["model_type"] == "musicgen_melody"
    kind: Any = MusicgenMelodyForConditionalGeneration if melody else MusicgenForConditionalGeneration
    model = kind.from_pretrained(folder).eval()
    inputs = dict(T5Tokenizer.from_pretrained(folder)([build_prompt(TAGS)], return_tensors="pt"))
    if tune is not None:
        wave = audio.load(tune, tiny.SAMPLE_RATE, FRAMES / 50)
        extractor = MusicgenMelodyFeatureExtractor.from_pretrained(folder)
        inputs |= extractor(wave.samples.mean(axis=0), sampling_rate=tiny.SAMPLE_RATE, return_tensors="pt")
    steps = FRAMES + tiny.NUM_CODEBOOKS - 1
    with torch.inference_mode():
        found = model.generate(**inputs, do_sample=False, guidance_scale=3.0, max_new_tokens=steps)
    return found[0].numpy()


@pytest.mark.parametrize("kind", ["plain", "stereo", "melody", "melody without one"])
def test_prompt_gives_the_same_audio_as_transformers(tmp_path: Path, tune: Path, kind: str) -> None:
    folder = tiny.write_transformers(tmp_path / "model", stereo=kind == "stereo", melody=kind.startswith("melody"))
    given = tune if kind == "melody" else None
    generator = MusicGen(model=str(folder), device="cpu", precision="fp32", sampling=LIKELIEST)
    ours = generator.generate(video(FRAMES / 50), TAGS, 0, controls=Controls(melody=given)).audio.samples
    wanted = theirs(folder, given)
    assert wanted.shape == ours.shape
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
