"""SONIQUE's autoencoder: chunked processing matches one pass, with the published strides."""

from __future__ import annotations

import torch

from v2m.mappings.stable_audio import AutoencoderConfig
from v2m.pretrained.codecs.oobleck import MARGIN_FRAMES, OobleckAutoencoder

SIZES = AutoencoderConfig(
    latent_dim=4,
    encoder_dim=8,
    encoder_channels=2,
    encoder_strides=(4, 4, 8, 8),
    decoder_channels=32,
    decoder_strides=(8, 8, 4, 4),
)


@torch.inference_mode()
def make_models() -> tuple[OobleckAutoencoder, OobleckAutoencoder]:
    torch.manual_seed(0)
    chunked, reference = (OobleckAutoencoder(SIZES, chunk_frames=step).eval() for step in (4, 1000))
    for name, value in chunked.named_parameters():
        value.mul_(1 if "alpha" in name or "bias" in name else 1.5)  # so that distant input has an effect
    reference.load_state_dict(chunked.state_dict())
    return chunked, reference


@torch.inference_mode()
def test_chunked_encode_and_decode_match_one_pass() -> None:
    """In double precision, where rounding is no part of the differences."""
    chunked, reference = (model.double() for model in make_models())
    wave = 0.5 * torch.randn(2, 1, 60 * 1024 - 300)
    coded = reference.encode(wave)
    assert coded.shape == (2, 4, 60)
    torch.testing.assert_close(chunked.encode(wave), coded, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(chunked.decode(coded), reference.decode(coded), rtol=1e-6, atol=1e-7)


@torch.inference_mode()
def test_receptive_field_is_within_the_margin() -> None:
    _, reference = make_models()
    wave, coded = 0.5 * torch.randn(1, 1, 60 * 1024), torch.randn(1, 4, 60)
    other = wave.clone()
    other[..., 30 * 1024 : 31 * 1024] += 1
    changed = (reference.encode(other) - reference.encode(wave)).abs().amax(dim=(0, 1)).nonzero()
    reach = [30 - int(changed.min()), int(changed.max()) - 30]
    other = coded.clone()
    other[..., 30] += 10
    changed = (reference.decode(other) - reference.decode(coded))[0, 0].abs().nonzero()
    reach += [30 - int(changed.min()) // 1024, int(changed.max()) // 1024 - 30]
    assert 2 <= max(reach) <= MARGIN_FRAMES
