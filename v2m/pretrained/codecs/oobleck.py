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

from v2m.mappings.stable_audio import AutoencoderSizes
from v2m.pretrained.codecs.chunking import in_pieces
from v2m.pretrained.safe_load import load_strictly

STEP = 128  # latent frames encoded or decoded at a time
MARGIN = 16  # latent frames: each half hears fewer than 12 to each side


class Autoencoder(nn.Module):
    """Both halves, without weights. `frames_at_once` bounds the memory, which is some 5 MB a frame at full size."""

    def __init__(self, sizes: AutoencoderSizes, frames_at_once: int = STEP) -> None:
        super().__init__()
        self.hop_length, self._step = math.prod(sizes.strides), frames_at_once
        hearing = DacConfig(encoder_hidden_size=sizes.encoder_width, downsampling_ratios=list(sizes.strides))
        telling = DacConfig(decoder_hidden_size=sizes.decoder_width, downsampling_ratios=list(sizes.rates[::-1]))
        telling.hidden_size = sizes.latent
        # of no type: pyright takes the modules of transformers' models for tensors
        self.encoder: nn.Module = DacEncoder(hearing)
        self.project = nn.Conv1d(hearing.hidden_size, sizes.encoded, 1)
        self.decoder: nn.Module = DacDecoder(telling)

    @classmethod
    def load(cls, sizes: AutoencoderSizes, state: Mapping[str, Tensor], what: str) -> Autoencoder:
        """With the weights `state` of `v2m.mappings.stable_audio.autoencoder`.

        Raises:
            MissingError: Names or shapes are others.
        """
        with torch.device("meta"):
            made = cls(sizes)
        load_strictly(made, state, what, assign=True)
        return made.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, 1, N) → (B, C, T), T = N / `hop` rounded up; the mean of what the encoder gives, not a draw from it."""
        lacking = -wave.shape[-1] % self.hop_length
        wave = nn.functional.pad(wave, (0, lacking)).to(self.project.weight)
        heard = in_pieces(self._encoded, wave, step=self._step, margin=MARGIN, taken=self.hop_length)
        return heard.float().chunk(2, dim=1)[0]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T · `hop`) float32, within ±1; one after the other, since each fills the device."""
        latents = latents.to(self.project.weight)
        parts = [
            in_pieces(self.decoder, each, step=self._step, margin=MARGIN, given=self.hop_length)
            for each in latents.split(1)
        ]
        return torch.cat(parts).float()

    def _encoded(self, wave: Tensor) -> Tensor:
        return self.project(self.encoder(wave))
