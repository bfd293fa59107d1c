"""Stems as the package demucs itself gives them: the same models of both published formats, the same segments."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.hf import load_safetensors_model
from demucs.states import load_model

from tests.fixtures.tiny import demucs as tiny
from v2m.core.types import Audio
from v2m.media.audio import resample
from v2m.pretrained.demucs import Demucs

CPU = torch.device("cpu")
RATE = 44100
ONLY_VOICE, ONLY_REST = [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]


def noise(seconds: float, rate: int = RATE, channels: int = 2) -> Audio:
    wave = np.random.default_rng(1).normal(0, 0.1, (channels, round(seconds * rate)))
    return Audio(wave.astype(np.float32), rate)


def wanted(model: object, sound: Audio, stems: list[int]) -> np.ndarray:
    mix = torch.from_numpy(sound.samples)[None]
    return apply_model(model, mix, shifts=0)[0, stems].sum(dim=0).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.001, 0.2, 0.3, 0.301, 1.1234])
def test_stems_of_any_length_sum_as_in_the_package(tmp_path: Path, seconds: float) -> None:
    """Shorter than a segment of 0.3 s, as long, and several."""
    found = Demucs.load(tiny.write(tmp_path), CPU)
    sound = noise(seconds)
    music = found.extract_stems(sound, found.non_vocal_stems)
    assert (music.sample_rate, music.samples.shape) == (RATE, sound.samples.shape)
    np.testing.assert_allclose(music.samples, wanted(tiny.make_model(), sound, [0, 1, 2]), atol=1e-6)
    voice = found.extract_stems(sound, ["vocals"]).samples
    np.testing.assert_allclose(voice, wanted(tiny.make_model(), sound, [3]), atol=1e-6)
    assert np.abs(voice - music.samples).max() > 1e-4


def test_both_formats_load_the_packages_model(tmp_path: Path) -> None:
    new, old = tiny.write(tmp_path / "new", seeds=(2,)), tiny.write_pickled(tmp_path / "old", seed=2)
    theirs = load_safetensors_model(new / "00000002.safetensors"), load_model(old)
    for folder, model in zip((new, old.parent), theirs, strict=True):
        assert model.segment == Fraction(3, 10)
        ours = Demucs.load(folder, CPU)
        sound = noise(0.5)
        np.testing.assert_allclose(
            ours.extract_stems(sound, ours.sources).samples, wanted(model.eval(), sound, [0, 1, 2, 3]), atol=1e-6
        )


@pytest.mark.parametrize("segment", [None, 0.2])
def test_bag_weights_are_applied_per_source(tmp_path: Path, segment: float | None) -> None:
    """As in `htdemucs_ft`, where there is one for each stem."""
    weights = [ONLY_REST, ONLY_VOICE]
    folder = tiny.write(tmp_path, seeds=(1, 2), weights=weights)
    about = folder / f"{folder.name}.yaml"
    about.write_text(
        f"models: ['00000001', '00000002']\nweights: {json.dumps(weights)}\nsegment: {json.dumps(segment)}"
    )
    ours, sound = Demucs.load(folder, CPU), noise(0.8)
    theirs = BagOfModels([tiny.make_model(1), tiny.make_model(2)], weights, segment).eval()
    for stems in ([0, 1, 2], [3]):
        found = ours.extract_stems(sound, [tiny.SOURCES[each] for each in stems]).samples
        np.testing.assert_allclose(found, wanted(theirs, sound, stems), atol=1e-6)


def test_other_sample_rates_and_mono_are_converted(tmp_path: Path) -> None:
    found = Demucs.load(tiny.write(tmp_path), CPU)
    for sound in (noise(0.7, 32000, 1), noise(0.7, 48000)):
        music = found.extract_stems(sound, found.non_vocal_stems)
        assert music.samples.shape == (2, round(0.7 * RATE))
        np.testing.assert_allclose(
            music.samples, wanted(tiny.make_model(), resample(sound, RATE), [0, 1, 2]), atol=1e-6
        )
        assert len(resample(music, sound.sample_rate)) == len(sound)


def test_separation_is_deterministic(tmp_path: Path) -> None:
    found = Demucs.load(tiny.write(tmp_path), CPU)
    one, two = (found.extract_stems(noise(0.8), found.non_vocal_stems).samples for _ in range(2))
    np.testing.assert_array_equal(one, two)
