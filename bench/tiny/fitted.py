"""An EnCodec model fitted to given music in seconds, so that its codes tell what is heard: in transformers' format.

All stays random but the encoder's last layer, which becomes the linear map that tells most of the log-mel spectrum,
and the codebooks: k-means of what it gives, each of what those before left over, as EnCodec's own begin. Codes come
out, but no music back: the decoder is not fitted.

N samples, T frames, D width of an embedding, F features of a frame, M mel bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from encodec.quantization.core_vq import kmeans
from torch import Tensor
from torch.nn import functional
from torchaudio.transforms import MelSpectrogram

from bench.tiny import encodec

HOP = math.prod(encodec.RATIOS)
BANDS, FLOOR = 32, 1e-4
RIDGE = 10.0
VECTORS, ROUNDS = 10_000, 20  # of k-means


@torch.no_grad()
def write(folder: Path, sounds: Sequence[Tensor], *, seed: int = 0) -> float:
    """Config and weights into `folder`; what share of the spectrum's variance the embeddings tell (R²).

    `sounds` (N,) are at the codec's rate.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = encodec.model(encodec.config(), seed=seed)
        layers: Any = model.encoder.layers
        last = layers[-1].conv
        features = torch.cat([_features(layers, sound) for sound in sounds])
        spectra = torch.cat([_spectrum(sound) for sound in sounds])
        wanted = spectra - spectra.mean(dim=0)
        axes = torch.linalg.svd(wanted, full_matrices=False).Vh[: encodec.LATENT]  # principal components
        weights = _regression(features, wanted @ axes.T)  # (F + 1, D)
        last.weight = weights[:-1].T.unflatten(1, last.weight.shape[1:])  # weight norm finds its own two parts of it
        last.bias.copy_(weights[-1])
        found = functional.pad(features, (0, 1), value=1.0) @ weights
        _fit_codebooks(model, found)
    encodec.save(folder, model)
    return 1 - float((wanted - found @ axes).var() / wanted.var())


def _features(layers: Any, sound: Tensor) -> Tensor:
    """(T, F): what the last convolution reads for each frame."""
    x = sound[None, None]
    for layer in layers[:-1]:
        x = layer(x)
    size = layers[-1].conv.kernel_size[0]
    x = functional.pad(x, (size // 2, size // 2), mode="reflect")
    return x.unfold(2, size, 1)[0].transpose(0, 1).flatten(1)


def _spectrum(sound: Tensor) -> Tensor:
    """(T, M)."""
    mel = MelSpectrogram(encodec.SAMPLE_RATE, n_fft=1024, hop_length=HOP, n_mels=BANDS, center=False)
    rest, margin = -len(sound) % HOP, (mel.n_fft - HOP) // 2
    return (mel(functional.pad(sound, (margin, margin + rest))) + FLOOR).log().T


def _regression(x: Tensor, y: Tensor) -> Tensor:
    """Least squares with an intercept, which comes last."""
    x, y = functional.pad(x, (0, 1), value=1.0).double(), y.double()
    return torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).float()


def _fit_codebooks(model: Any, embeddings: Tensor) -> None:
    """(all T, D)."""
    rest = embeddings[torch.randperm(len(embeddings))[:VECTORS]]
    for layer in model.quantizer.layers:
        book = layer.codebook
        centres, counts = kmeans(rest, len(book.embed), ROUNDS)
        book.embed.copy_(centres)
        book.cluster_size.copy_(counts.clamp(min=1))
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        rest = rest - centres[torch.cdist(rest, centres).argmin(dim=1)]
