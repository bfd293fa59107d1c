"""VidMuse generation end to end on tiny checkpoints in VidMuse's layout and this project's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from tests.fixtures.tiny import clip, encodec, t5
from tests.fixtures.tiny import musicgen as tiny
from v2m.analysis.visual_events import EVENT_CHANNELS
from v2m.checkpoints import V2M, Component, VisualInputConfig
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import SamplingConfig, Tags, Video
from v2m.generators.vidmuse import VidMuse
from v2m.media import video
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig
from v2m.models.visual_conditioner import ConditionerConfig

TAGS = Tags(genres=["jazz"], moods=["calm"], tempo=96)
SIZES = ConditionerConfig(vision_dim=clip.DIM, num_tokens=5, num_layers=1, num_heads=2, head_dim=8, ffn_dim=16)
SHORT = {"window": 1.0, "stride": 0.5}


def make(
    folder: Path, *, visual_input: VisualInputConfig | None = None, text: int | None = 16, visual: bool = True
) -> Path:
    """A random checkpoint in this project's layout whose output depends strongly on its conditions."""
    lm = LMConfig(dim=32, num_layers=2, num_heads=4, codebook_size=encodec.CODEBOOK_SIZE)
    parts = {
        "codec": Component(folder=encodec.write(folder / "source" / "codec")),
        "text_encoder": Component(folder=t5.write(folder / "source" / "t5")),
        "vision_encoder": Component(folder=clip.write(folder / "source" / "clip")),
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = V2M(
            MusicConfig(lm, text, conditioner=SIZES if visual else None), components=parts, visual_input=visual_input
        )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("text.weight", "lm.heads")) or "cross_attention" in name:
                value.mul_(6)
    model.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(
        tmp_path_factory.mktemp("trained"),
        visual_input=VisualInputConfig(num_long_term_frames=4, event_channels=EVENT_CHANNELS),
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VidMuse's two files, and the codec that they name beside them."""
    folder = tmp_path_factory.mktemp("published")
    encodec.write(folder / "encodec_32khz")
    return tiny.write_vidmuse(folder / "model")


@pytest.fixture(autouse=True)
def named(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(published.parent))


@pytest.fixture(scope="module")
def cuts(media: Path) -> Video:
    return video.open(media / "cuts.mp4")


def vidmuse(folder: Path, **settings: Any) -> VidMuse:
    return VidMuse(**{"model": str(folder), "device": "cpu", "precision": "fp32", **settings})


def sound(generator: VidMuse, source: Video, tags: Tags = TAGS, seed: int = 3) -> NDArray[np.float32]:
    return generator.generate(source, tags, seed).audio.samples


@pytest.mark.parametrize("kind", ["trained", "published"])
def test_output_matches_video_length_and_depends_on_video_seed_and_cfg(
    kind: str, request: pytest.FixtureRequest, cuts: Video
) -> None:
    """The same twice; another with other pictures, another seed, or led by them more."""
    folder = request.getfixturevalue(kind)
    generator = vidmuse(folder, keep_loaded=True, **SHORT)
    first, other = cuts.crop(0.0, 1.21), cuts.crop(2.7, 3.91)
    result = sound(generator, first)
    assert result.shape == (1, round(1.21 * encodec.SAMPLE_RATE))
    assert np.array_equal(result, sound(generator, first))
    assert np.array_equal(result, sound(vidmuse(folder, **SHORT), first))
    assert not np.array_equal(result, sound(generator, other))
    assert not np.array_equal(result, sound(generator, first, seed=4))
    for sampling in (SamplingConfig(cfg_scale=7.0), SamplingConfig(video_cfg_scale=7.0)):
        assert not np.array_equal(result, sound(vidmuse(folder, sampling=sampling, **SHORT), first))


def test_null_video_is_used_only_by_models_without_null_tokens(
    trained: Path, published: Path, cuts: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [sound(vidmuse(item), cuts.crop(0.0, 0.3)) for item in (published, trained)]
    monkeypatch.setattr("v2m.generators.vidmuse_engine.VideoMusicEngine._get_null_video", lambda _: None)
    after = [sound(vidmuse(item), cuts.crop(0.0, 0.3)) for item in (published, trained)]
    same = [np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [False, True]


def test_prompt_affects_only_models_with_text_conditioning(trained: Path, published: Path, cuts: Video) -> None:
    clip_, other = cuts.crop(0.0, 0.4), replace(TAGS, genres=["metal"], negative=["drums"])
    for folder, same in ((trained, False), (published, True)):
        generator = vidmuse(folder, keep_loaded=True)
        assert np.array_equal(sound(generator, clip_), sound(generator, clip_, other)) == same
    facts = vidmuse(trained).generate(clip_, other, 3).metadata
    assert "metal" in facts["prompt"]
    assert facts["negative_prompt"] == "drums"
    assert facts["visual_input"]["event_channels"] == list(EVENT_CHANNELS)


def test_visual_input_config_is_saved_in_the_checkpoint(
    trained: Path, published: Path, cuts: Video, tmp_path: Path
) -> None:
    assert V2M.from_pretrained(str(trained)).visual_input == VisualInputConfig(
        num_long_term_frames=4, event_channels=EVENT_CHANNELS
    )
    V2M.from_pretrained(str(published)).save_pretrained(tmp_path / "own")
    again = V2M.from_pretrained(str(tmp_path / "own"))
    assert again.visual_input == VisualInputConfig(pooling="all", aspect="vidmuse")
    assert not again.config.has_null_tokens
    expected, ours = (sound(vidmuse(item), cuts.crop(0.0, 0.3)) for item in (published, tmp_path / "own"))
    assert np.array_equal(expected, ours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_input": None}, "has no visual input settings"),
        (
            {"visual_input": VisualInputConfig(event_channels=("cut", "noise"))},
            "was trained on the event channels cut, noise, and this v2m measures cut, mot",
        ),
        (
            {"visual_input": VisualInputConfig(pooling="all", event_channels=EVENT_CHANNELS)},
            "17 tokens a frame instead of 5",
        ),
    ],
)
def test_incompatible_visual_input_is_rejected(
    tmp_path: Path, cuts: Video, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DependencyError, match=message):
        sound(vidmuse(make(tmp_path, **change)), cuts)


def test_invalid_visual_input_config_is_rejected(trained: Path, tmp_path: Path) -> None:
    folder = make(tmp_path, visual_input=VisualInputConfig(event_channels=EVENT_CHANNELS))
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    for wrong, message in (
        ({"num_long_term_frames": 0}, "num_long_term_frames 0 must be above 0"),
        ({"hole": 1}, "hole"),
        (3, "visual_input"),
    ):
        (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"visual_input": wrong}))
        with pytest.raises(DependencyError, match=message):
            V2M.from_pretrained(str(folder))


def test_model_without_visual_conditioner_is_rejected(tmp_path: Path, cuts: Video) -> None:
    with pytest.raises(UsageError, match="has no visual conditioner: give it to the recipe musicgen"):
        sound(vidmuse(make(tmp_path, visual=False)), cuts)
