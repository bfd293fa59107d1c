"""SONIQUE's autoencoder in pieces is the autoencoder in one go, with the published strides."""

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
def both() -> tuple[OobleckAutoencoder, OobleckAutoencoder]:
    torch.manual_seed(0)
    pieces, whole = (OobleckAutoencoder(SIZES, chunk_frames=step).eval() for step in (8, 1000))
    for name, value in pieces.named_parameters():
        value.mul_(1 if "alpha" in name or "bias" in name else 1.5)  # so that what is far away is heard, too
    whole.load_state_dict(pieces.state_dict())
    return pieces, whole


@torch.inference_mode()
def test_pieces_are_joined_as_if_there_were_none() -> None:
    pieces, whole = both()
    wave = 0.5 * torch.randn(2, 1, 60 * 1024 - 300)
    coded = whole.encode(wave)
    assert coded.shape == (2, 4, 60)
    torch.testing.assert_close(pieces.encode(wave), coded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces.decode(coded), whole.decode(coded), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_neither_half_hears_beyond_the_margin() -> None:
    _, whole = both()
    wave, coded = 0.5 * torch.randn(1, 1, 60 * 1024), torch.randn(1, 4, 60)
    other = wave.clone()
    other[..., 30 * 1024 : 31 * 1024] += 1
    moved = (whole.encode(other) - whole.encode(wave)).abs().amax(dim=(0, 1)).nonzero()
    reach = [30 - int(moved.min()), int(moved.max()) - 30]
    other = coded.clone()
    other[..., 30] += 10
    moved = (whole.decode(other) - whole.decode(coded))[0, 0].abs().nonzero()
    reach += [30 - int(moved.min()) // 1024, int(moved.max()) // 1024 - 30]
    assert 2 <= max(reach) <= MARGIN_FRAMES
