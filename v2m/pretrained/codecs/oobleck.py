"""The autoencoder that SONIQUE's latents are of: mono sound ↔ 64 numbers 43 times a second.

The convolutions of the Descript Audio Codec (Kumar et al., 2023), of which transformers has the modules, around a
Gaussian bottleneck instead of a quantiser.

B batch, N samples, C latent channels, T latent frames of `hop` samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import DacConfig
from transformers.models.dac.modeling_dac import DacDecoder, DacEncoder

from v2m.mappings.stable_audio import AutoencoderConfig
from v2m.pretrained.codecs.chunking import apply_chunked
from v2m.pretrained.safe_load import load_strict

CHUNK_FRAMES = 128  # latent frames encoded or decoded at a time
MARGIN_FRAMES = 16  # latent frames: each half hears fewer than 12 to each side


class OobleckAutoencoder(nn.Module):
    """Both halves, without weights. `frames_at_once` bounds the memory, which is some 5 MB a frame at full size."""

    def __init__(self, sizes: AutoencoderConfig, chunk_frames: int = CHUNK_FRAMES) -> None:
        super().__init__()
        self.hop_length, self._chunk_frames = math.prod(sizes.encoder_strides), chunk_frames
        hearing = DacConfig(encoder_hidden_size=sizes.encoder_channels, downsampling_ratios=list(sizes.encoder_strides))
        telling = DacConfig(
            decoder_hidden_size=sizes.decoder_channels, downsampling_ratios=list(sizes.decoder_strides[::-1])
        )
        telling.hidden_size = sizes.latent_dim
        # of no type: pyright takes the modules of transformers' models for tensors
        self.encoder: nn.Module = DacEncoder(hearing)
        self.project = nn.Conv1d(hearing.hidden_size, sizes.encoder_dim, 1)
        self.decoder: nn.Module = DacDecoder(telling)

    @classmethod
    def load(cls, sizes: AutoencoderConfig, state: Mapping[str, Tensor], description: str) -> OobleckAutoencoder:
        """With the weights `state` of `v2m.mappings.stable_audio.autoencoder`.

        Raises:
            MissingError: Names or shapes are others.
        """
        with torch.device("meta"):
            made = cls(sizes)
        load_strict(made, state, description, assign=True)
        return made.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, 1, N) → (B, C, T), T = N / `hop` rounded up; the mean of what the encoder gives, not a draw from it."""
        lacking = -wave.shape[-1] % self.hop_length
        wave = nn.functional.pad(wave, (0, lacking)).to(self.project.weight)
        heard = apply_chunked(
            self._encode_chunk, wave, step=self._chunk_frames, margin=MARGIN_FRAMES, in_stride=self.hop_length
        )
        return heard.float().chunk(2, dim=1)[0]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T · `hop`) float32, within ±1; one after the other, since each fills the device."""
        latents = latents.to(self.project.weight)
        parts = [
            apply_chunked(self.decoder, each, step=self._chunk_frames, margin=MARGIN_FRAMES, out_stride=self.hop_length)
            for each in latents.split(1)
        ]
        return torch.cat(parts).float()

    def _encode_chunk(self, wave: Tensor) -> Tensor:
        return self.project(self.encoder(wave))
