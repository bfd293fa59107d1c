"""SONIQUE's autoencoder: mono audio ↔ 64 latent channels at 43 frames a second.

The convolutions of the Descript Audio Codec (Kumar et al., 2023), of which transformers has the modules, around a
Gaussian bottleneck instead of a quantizer.

B batch, N samples, C latent channels, T latent frames of `hop_length` samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DacConfig
from transformers.models.dac.modeling_dac import DacDecoder, DacEncoder

from v2m.mappings.stable_audio import AutoencoderConfig
from v2m.pretrained.codecs.base import apply_chunked
from v2m.pretrained.safe_load import load_strict

CHUNK_FRAMES = 128  # latent frames
DECODED_CHUNKS = 8  # that are decoded together, stage by stage, so that hardly a frame is computed twice
MARGIN_FRAMES = 16  # encoder and decoder each reach fewer than 12 latent frames to each side
UNIT_REACH = 3 * (1 + 3 + 9)  # frames to each side that the residual units of a stage reach: kernels of 7, dilated


class OobleckAutoencoder(nn.Module):
    """Oobleck autoencoder. `chunk_frames` bounds the memory, some 5 MB a frame at full size."""

    def __init__(self, sizes: AutoencoderConfig, chunk_frames: int = CHUNK_FRAMES) -> None:
        super().__init__()
        self.hop_length, self._chunk_frames = math.prod(sizes.encoder_strides), chunk_frames
        encoder_config = DacConfig(
            encoder_hidden_size=sizes.encoder_channels, downsampling_ratios=list(sizes.encoder_strides)
        )
        decoder_config = DacConfig(
            decoder_hidden_size=sizes.decoder_channels, downsampling_ratios=list(sizes.decoder_strides[::-1])
        )
        decoder_config.hidden_size = sizes.latent_dim
        # annotated: pyright takes the modules of transformers' models for tensors
        self.encoder: nn.Module = DacEncoder(encoder_config)
        self.project = nn.Conv1d(encoder_config.hidden_size, sizes.encoder_dim, 1)
        self.decoder: nn.Module = DacDecoder(decoder_config)

    @classmethod
    def load(cls, sizes: AutoencoderConfig, state: Mapping[str, Tensor], description: str) -> OobleckAutoencoder:
        """Build the autoencoder with weights of `v2m.mappings.stable_audio.autoencoder_state`."""
        with torch.device("meta"):
            model = cls(sizes)
        load_strict(model, state, description, assign=True)
        return model.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """Encode (B, 1, N) → (B, C, T), T = N / `hop_length` rounded up: the posterior's mean."""
        padding = -wave.shape[-1] % self.hop_length
        wave = nn.functional.pad(wave, (0, padding)).to(self.project.weight)
        moments = apply_chunked(
            self._encode_chunk, wave, step=self._chunk_frames, margin=MARGIN_FRAMES, in_stride=self.hop_length
        )
        return moments.float().chunk(2, dim=1)[0]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode (B, C, T) → (B, 1, T · `hop_length`) float32, within ±1, one by one: each fills the device."""
        latents = latents.to(self.project.weight)
        waves = [
            apply_chunked(
                self._decode_chunk,
                latent,
                step=DECODED_CHUNKS * self._chunk_frames,
                margin=MARGIN_FRAMES,
                out_stride=self.hop_length,
            )
            for latent in latents.split(1)
        ]
        return torch.cat(waves).float()

    def _decode_chunk(self, latents: Tensor) -> Tensor:
        """Decode (1, C, T) stage by stage, each in pieces of what `chunk_frames` latent frames are there."""
        decoder: Any = self.decoder
        x, step = decoder.conv1(latents), self._chunk_frames
        for stage in decoder.block:
            stride = stage.conv_t1.stride[0]
            margin = math.ceil(UNIT_REACH / stride) + 2  # and what the transposed convolution reaches
            x = apply_chunked(stage, x, step=step, margin=margin, out_stride=stride)
            step *= stride

        def output(x: Tensor) -> Tensor:
            return decoder.tanh(decoder.conv2(decoder.snake1(x)))

        return apply_chunked(output, x, step=step, margin=decoder.conv2.padding[0])

    def _encode_chunk(self, wave: Tensor) -> Tensor:
        return self.project(self.encoder(wave))
