"""Vocos vocoders of YuE: codec embeddings at 50 frames a second → 44.1 kHz audio.

Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (2023): a ConvNeXt that keeps
the frame rate, then one spectrum a frame and the inverse Fourier transform. Modules are named as in the published
state dict.

B batch, D width of an embedding (1024), W width of the network (512), T frames, F bins of the spectrum (1765), N
samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, gelu

from v2m.core.errors import DependencyError
from v2m.pretrained.codecs.base import apply_chunked
from v2m.pretrained.codecs.xcodec import check_files
from v2m.pretrained.safe_load import load_strict, read_tensors, read_yaml

CONFIG = "decoders/config.yaml"
CHUNK_FRAMES = 500
MARGIN_FRAMES = 32  # frames: nine kernels of 7 and the window of the inverse transform reach 29
MAX_MAGNITUDE = 100.0  # magnitude of a spectrum, after the exponential


@dataclass(frozen=True)
class VocosConfig:
    """D, W, the width inside a block, how many blocks, samples of a window and from one frame to the next."""

    input_dim: int
    dim: int
    hidden_dim: int
    num_blocks: int
    n_fft: int
    hop_length: int


class Vocos(nn.Module):
    """One vocoder."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        self.backbone = VocosBackbone(config)
        self.head = ISTFTHead(config)

    @classmethod
    def load(cls, folder: Path, name: str, device: torch.device) -> Vocos:
        """Load the vocoder `name` of a copy of `m-a-p/xcodec_mini_infer`, always in float32."""
        check_files(folder, (CONFIG, name))
        path = folder / name
        state = read_tensors(path)
        with torch.device("meta"):
            decoder = cls(_read_config(state, read_yaml(folder / CONFIG), path))
        load_strict(decoder, state, f"a Vocos decoder of YuE ({str(path)!r})", assign=True)
        return decoder.eval().requires_grad_(False).to(device=device, dtype=torch.float32)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, D, T) → (B, 1, T · hop)."""
        return self.head(self.backbone(embeddings))[:, None]

    @torch.inference_mode()
    def decode(self, embeddings: Tensor) -> Tensor:
        """(B, D, T) → audio (B, 1, T · hop), about ±1, frame t from sample t · hop on, in bounded memory."""
        return apply_chunked(self, embeddings, step=CHUNK_FRAMES, margin=MARGIN_FRAMES, out_stride=self.hop_length)


class VocosBackbone(nn.Module):
    """ConvNeXt over embeddings, (B, D, T) → (B, T, W)."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.embed = nn.Conv1d(config.input_dim, config.dim, kernel_size=7, padding=3)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.convnext = nn.ModuleList(ConvNeXtBlock(config) for _ in range(config.num_blocks))
        self.final_layer_norm = nn.LayerNorm(config.dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).mT).mT  # (B, W, T)
        for block in self.convnext:
            x = block(x)
        return self.final_layer_norm(x.mT)  # (B, T, W)


class ConvNeXtBlock(nn.Module):
    """Liu et al., "A ConvNet for the 2020s" (2022), in one dimension."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(config.dim, config.dim, kernel_size=7, padding=3, groups=config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.pwconv1 = nn.Linear(config.dim, config.hidden_dim)
        self.pwconv2 = nn.Linear(config.hidden_dim, config.dim)
        self.gamma = nn.Parameter(torch.ones(config.dim))

    def forward(self, x: Tensor) -> Tensor:
        change = self.norm(self.dwconv(x).mT)  # (B, T, W)
        return x + (self.gamma * self.pwconv2(gelu(self.pwconv1(change)))).mT


class ISTFTHead(nn.Module):
    """Spectrum and inverse STFT, (B, T, W) → (B, N)."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.dim, config.n_fft + 2)
        self.istft = ISTFT(config)

    def forward(self, x: Tensor) -> Tensor:
        magnitude, phase = self.out(x).mT.chunk(2, dim=1)  # (B, F, T) each
        return self.istft(torch.polar(magnitude.exp().clamp(max=MAX_MAGNITUDE), phase))


class ISTFT(nn.Module):
    """Inverse STFT, (B, F, T) → (B, N = T · hop): overlap-add divided by the windows' power.

    (window − hop) / 2 samples are cut off at each end, so that frame t is centered on samples t · hop to (t + 1) · hop.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        self.register_buffer("window", torch.hann_window(config.n_fft))

    def forward(self, spectra: Tensor) -> Tensor:
        window = self.window
        assert isinstance(window, Tensor)
        # A real signal has no imaginary part at DC and Nyquist; not every FFT library ignores one there.
        ends = torch.zeros_like(spectra.real)
        ends[:, [0, -1]] = spectra.imag[:, [0, -1]]
        frames = torch.fft.irfft(torch.complex(spectra.real, spectra.imag - ends), len(window), dim=1)
        power = window.square()[None, :, None].expand(1, -1, spectra.shape[2])
        return self._overlap_add(frames * window[:, None]) / self._overlap_add(power)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(B, window, T) → (B, T · hop)."""
        width, count = frames.shape[1:]
        shape = (1, (count - 1) * self.hop_length + width)
        padded = fold(frames, shape, kernel_size=(1, width), stride=(1, self.hop_length))[:, 0, 0]
        cut = (width - self.hop_length) // 2
        return padded[:, cut : cut + count * self.hop_length]


def _read_config(state: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> VocosConfig:
    """Sizes by the shapes of the weights; the hop length from the settings."""
    try:
        head = config["head"]["init_args"]
        hop, padding = int(head["hop_length"]), head.get("padding", "same")
        width, embedding, _ = state["backbone.embed.weight"].shape
        inner = state["backbone.convnext.0.pwconv1.weight"].shape[0]
        window = len(state["head.istft.window"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DependencyError(f"{str(path)!r} or its {CONFIG} is no Vocos decoder of YuE ({error})") from error
    if padding != "same" or not 0 < hop <= window or (window - hop) % 2:
        raise DependencyError(f"{CONFIG}: window {window}, hop {hop}, padding {padding!r} are not YuE's")
    blocks = sum(key.endswith(".gamma") for key in state)
    return VocosConfig(embedding, width, inner, blocks, window, hop)
