"""VidMuse's layout across the border, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.fixtures.tiny import musicgen as tiny
from v2m.core.errors import DependencyError, UsageError
from v2m.mappings.vidmuse import config_from_v2m, config_to_v2m, from_v2m, is_vidmuse, to_v2m
from v2m.models.music_model import MusicConfig, MusicModel

POSITIONS = "visual_encoder_model.vision_model.embeddings.position_ids"
Published = tuple[dict[str, Any], dict[str, Tensor]]


def read(folder: Path) -> Published:
    package = torch.load(folder / "state_dict.bin", weights_only=True)
    return yaml.safe_load(package["xp.cfg"]), package["best_state"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return read(tiny.write_vidmuse(tmp_path_factory.mktemp("vidmuse"), position_ids=True))


def test_vidmuse_round_trip_is_bit_identical(published: Published) -> None:
    settings, state = published
    plain, (own, clip) = config_to_v2m(settings, state), to_v2m(state)
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in MusicModel(MusicConfig.from_dict(plain)).state_dict().items()
    }
    back = from_v2m(own, clip)
    assert back.keys() == state.keys() - {POSITIONS}
    assert all(torch.equal(back[name], state[name]) for name in back)
    assert config_to_v2m(config_from_v2m(plain), state) == plain


def test_vidmuse_is_distinguished_from_musicgen(published: Published) -> None:
    assert is_vidmuse(published[1])
    assert not is_vidmuse(tiny.audiocraft_model(tiny.audiocraft_config()).state_dict())


def test_mismatched_weights_are_refused(published: Published) -> None:
    settings, state = published
    with pytest.raises(DependencyError, match="visual_encoder 'videomae' is not the published VidMuse's"):
        config_to_v2m(settings | {"video": {"visual_encoder": "videomae"}}, state)
    local_only = {"video": settings["video"] | {"add_global": {"if_add_gobal": False}}}
    with pytest.raises(DependencyError, match=r"video.add_global.if_add_gobal False: v2m reads VidMuse with frames of"):
        config_to_v2m(settings | local_only, state)
    with pytest.raises(DependencyError, match="lack global_pos_embedding: "):
        config_to_v2m(settings, {name: value for name, value in state.items() if not name.startswith("global")})
    with pytest.raises(DependencyError, match=r"VidMuse's CLIP: it has no 'visual_encoder_model.text_model.x'"):
        to_v2m(state | {"visual_encoder_model.text_model.x": torch.zeros(1)})
    with pytest.raises(DependencyError, match=r"it has no 'local_temporal_transformer.layers.0.2.norm.weight'"):
        to_v2m(state | {"local_temporal_transformer.layers.0.2.norm.weight": torch.zeros(1)})


def test_models_unknown_to_vidmuse_are_refused(published: Published) -> None:
    plain = config_to_v2m(*published)
    with pytest.raises(UsageError, match="models with its conditioner alone"):
        config_from_v2m(plain | {"conditioner": None})
    with pytest.raises(UsageError, match="no place for learned nulls"):
        config_from_v2m(plain | {"conditioner": plain["conditioner"] | {"null_tokens": True}})
    with pytest.raises(UsageError, match="not 2 and 3"):
        config_from_v2m(plain | {"conditioner": plain["conditioner"] | {"num_heads": 2}})
