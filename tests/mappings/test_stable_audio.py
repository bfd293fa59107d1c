"""What a model's JSON may say, and which weights are whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.fixtures.tiny import sonique as tiny
from v2m.core.errors import DependencyError
from v2m.mappings import stable_audio

Spoil = Callable[[dict[str, Any]], Any]


def test_published_config_is_parsed() -> None:
    found = stable_audio.parse_config(tiny.make_config())
    assert (found.hop_length, found.window_samples, found.clap_layer, found.clap_path) == (
        64,
        4096,
        -2,
        "./ckpts/clap/clap.ckpt",
    )
    assert found.number_ranges == {"seconds_start": (0, 512), "seconds_total": (0, 512)}
    assert found.unet["norm_groups"] == 16


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda c: c.update(model_type="autoencoder"), "model_type is 'autoencoder', not 'diffusion_cond'"),
        (lambda c: c.update(audio_channels=2), "audio_channels is 2, not 1"),
        (lambda c: c["model"]["diffusion"].update(type="dit"), "diffusion is 'dit'"),
        (lambda c: c["model"]["diffusion"]["config"].update(use_snake=True), "has the settings use_snake"),
        (lambda c: c["model"]["diffusion"]["config"].update(patch_size=2), "patch_size is 2, not 1"),
        (lambda c: c["model"]["diffusion"].update(cross_attention_cond_ids=["prompt"]), "the U-Net attends to"),
        (lambda c: c["model"]["pretransform"]["config"]["encoder"].update(type="oobleck"), "encoder is 'oobleck'"),
        (lambda c: c["model"]["pretransform"]["config"].update(downsampling_ratio=32), "strides is 64, not 32"),
        (lambda c: c["model"]["conditioning"]["configs"].pop(0), "conditions"),
        (lambda c: c["model"]["conditioning"]["configs"][0].update(type="t5"), "conditions"),
        (lambda c: c["model"]["diffusion"].pop("config"), "lacks 'config'"),
        (lambda c: c.pop("model"), "lacks 'model'"),
        (lambda c: c.update(model=[1]), "these are not the settings"),
        (lambda c: c.update(sample_rate="fast"), "fast"),
    ],
)
def test_configs_of_other_models_are_refused(spoil: Spoil, told: str) -> None:
    config = tiny.make_config()
    spoil(config)
    with pytest.raises(DependencyError, match=told):
        stable_audio.parse_config(config)


def test_unsupported_settings_are_reported_together() -> None:
    config = tiny.make_config(use_nearest_upsample=True) | {"audio_channels": 2}
    with pytest.raises(DependencyError, match=r"audio_channels is 2.*use_nearest_upsample is True"):
        stable_audio.parse_config(config)


def test_half_weight_norm_and_unknown_weights_are_refused() -> None:
    settings, state = stable_audio.parse_config(tiny.make_config()), tiny.make_state_dict()
    lame = {name: value for name, value in state.items() if not name.endswith("block.0.weight_g")}
    with pytest.raises(DependencyError, match="lacks its weight_g"):
        stable_audio.autoencoder_state(lame, settings.autoencoder)
    foreign = state | {"pretransform.model.bottleneck.codebook": torch.zeros(1)}
    with pytest.raises(DependencyError, match=r"has no 'bottleneck\.codebook'"):
        stable_audio.autoencoder_state(foreign, settings.autoencoder)
