"""Style conditioner of MusicGen-Style: an excerpt of music as a few quantized tokens.

Rouard et al., "Audio Conditioning for Music Generation via Discrete Bottleneck Features" (2024), section 3. Frozen
features of the excerpt go through a transformer and a residual vector quantizer, the bottleneck, and every n-th frame
becomes a token. Names of submodules are names of weights in checkpoints: they stay.

B batch, F feature dimension, T feature frames, S style tokens, E dimension of the conditioner, D of the language model,
V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from v2m.models.lm import LMConfig, TransformerLayer, sinusoidal_embedding


class _Scale(NamedTuple):
    dim: int
    num_layers: int
    num_heads: int


SCALES = {"none": _Scale(512, 0, 8), "xsmall": _Scale(256, 4, 8), "default": _Scale(512, 8, 8)}
SCALES["large"] = _Scale(1024, 24, 16)


@dataclass(frozen=True)
class StyleConfig:
    """Sizes of the conditioner; the defaults are those of facebook/musicgen-style.

    Args:
        encoder: Frozen model that the excerpt's features come from: MERT, or the codes of EnCodec.
        scale: Sizes of the transformer: "none", "xsmall", "default" or "large".
        feature_dim: F, of MERT's frames; of EnCodec's codes the codebook size.
        feature_codebooks: Codebooks of EnCodec that are read.
        downsampling: Frames for each token: of MERT's 75 a second, 15 make 5 tokens a second.
        num_quantizers: Codebooks of the residual quantizer; 0 is none of them, so no bottleneck.
        eval_quantizers: How many of them are used unless the user decides.
        codebook_size: V.
        batch_norm: Whether the transformer's output is normalized.
    """

    encoder: Literal["mert", "encodec"] = "mert"
    scale: str = "default"
    feature_dim: int = 768
    feature_codebooks: int = 3
    downsampling: int = 15
    num_quantizers: int = 6
    eval_quantizers: int = 3
    codebook_size: int = 1024
    batch_norm: bool = True

    def __post_init__(self) -> None:
        problems = [] if self.scale in SCALES else [f"scale {self.scale!r} is none of {', '.join(SCALES)}"]
        problems += [] if self.encoder in ("mert", "encodec") else [f"encoder {self.encoder!r} is not mert or encodec"]
        positive = ("feature_dim", "feature_codebooks", "downsampling", "codebook_size")
        problems += [f"{name} {getattr(self, name)} must be 1 or more" for name in positive if getattr(self, name) < 1]
        if self.num_quantizers and not 1 <= self.eval_quantizers <= self.num_quantizers:
            problems.append(f"eval_quantizers {self.eval_quantizers} must be 1 to {self.num_quantizers}")
        if problems:
            raise ValueError(f"style: {'; '.join(problems)}")


class Codebook(nn.Module):
    """One codebook of the residual quantizer.

    Its entries are averages: `sums` and `counts` are those of training, kept so that a checkpoint is whole.
    """

    entries: Tensor
    sums: Tensor
    counts: Tensor
    initialized: Tensor

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(codebook_size, dim))
        self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("initialized", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest entry of each vector, (B, T, E) → (B, T, E)."""
        distances = x.square().sum(-1, keepdim=True) - 2 * x @ self.entries.T + self.entries.square().sum(-1)
        return self.entries[distances.argmin(dim=-1)]


class StyleConditioner(nn.Module):
    """Frozen features of an excerpt in, style tokens in the language model's dimension out."""

    def __init__(self, config: StyleConfig, output_dim: int) -> None:
        super().__init__()
        self.config = config
        dim, num_layers, num_heads = SCALES[config.scale]
        self.embed: nn.Linear | nn.ModuleList
        if config.encoder == "mert":
            self.embed = nn.Linear(config.feature_dim, dim)
        else:
            tables = (nn.Embedding(config.feature_dim, dim) for _ in range(config.feature_codebooks))
            self.embed = nn.ModuleList(tables)
        layer = LMConfig(dim=dim, num_heads=num_heads, cross_attention=False)
        self.layers = nn.ModuleList(TransformerLayer(layer) for _ in range(num_layers))
        self.batch_norm = nn.BatchNorm1d(dim, affine=False) if config.batch_norm else None
        self.quantizers = nn.ModuleList(Codebook(config.codebook_size, dim) for _ in range(config.num_quantizers))
        self.output = nn.Linear(dim, output_dim)

    def forward(self, features: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Return style tokens (B, S, D), S = T / `downsampling` rounded up.

        `features` are MERT's (B, T, F), or EnCodec's codes (B, K, T) int64. Of the quantizer the first
        `num_quantizers` codebooks are used: fewer leave the music freer.
        """
        x = self._embed(features)
        if len(self.layers):
            steps = torch.arange(x.shape[1], device=x.device)
            x = x + sinusoidal_embedding(steps, x.shape[2]).to(x.dtype)
            everywhere = torch.ones(len(steps), len(steps), dtype=torch.bool, device=x.device)
            for layer in self.layers:
                x = layer(x, causal_mask=everywhere)
        if self.batch_norm is not None:
            x = self.batch_norm(x.transpose(1, 2)).transpose(1, 2)
        if len(self.quantizers):
            x = self._quantize(x, num_quantizers or self.config.eval_quantizers)
        return self.output(x[:, :: self.config.downsampling])

    def _embed(self, features: Tensor) -> Tensor:
        if isinstance(self.embed, nn.Linear):
            return self.embed(features.to(self.embed.weight.dtype))
        return torch.stack([table(features[:, k]) for k, table in enumerate(self.embed)]).sum(dim=0)

    def _quantize(self, x: Tensor, count: int) -> Tensor:
        residual, out = x, torch.zeros_like(x)
        for codebook in self.quantizers[:count]:
            nearest = codebook(residual)
            residual, out = residual - nearest, out + nearest
        return out
