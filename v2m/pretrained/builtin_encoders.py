"""Vision and text encoders without weights, for models that need no download.

F frames, H height, W width of a frame, P tokens per frame, B batch, L words of the longest text, D dimension.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from v2m.core.errors import UsageError
from v2m.core.types import Pixels
from v2m.models.conditioning import Condition

FRAME_STATISTICS = "v2m-frame-statistics-1"  # names change with the values: those of one are not those of another
HASHED_WORDS = "v2m-hashed-words-1"

SIDE, GRID = 64, 2  # pixels of the square that is measured; rows and columns of its parts
NUM_BINS = 8  # of hue, and of luma
LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709

NUM_HASH_BITS, NUM_NUMBER_WAVES = 112, 8  # numbers are waves of their binary logarithm, each twice as fast
_WORD = re.compile(r"[a-z]+[#♯♭]?|\d+(?:\.\d+)?")


class FrameStatistics:
    """Colors, light and edges of a frame and of its quarters.

    They are 5 tokens, as the pooling "grid" of other encoders. A token has the means and deviations of red, green and
    blue, the mean saturation, histograms of hue (weighted by saturation) and of luma, and the mean horizontal and
    vertical change of luma. All values lie within 0–1.
    """

    name = f"{FRAME_STATISTICS}:grid"
    aspect = "squash"
    num_tokens = 1 + GRID**2
    dim = 6 + 1 + 2 * NUM_BINS + 2
    convert = None

    def __init__(self, pooling: str = "grid", aspect: str = "squash") -> None:
        if (pooling, aspect) != ("grid", "squash"):
            raise UsageError(f"{FRAME_STATISTICS} has pooling 'grid' and aspect 'squash' alone: leave them out")

    def decode_width(self, width: int, height: int) -> int:  # noqa: ARG002 - of every vision encoder
        return min(width, 2 * SIDE)

    def encode(self, frames: Pixels | Tensor) -> Tensor:
        """(F, H, W, 3) uint8, upright RGB → tokens (F, P, D) float32."""
        x = torch.as_tensor(frames).permute(0, 3, 1, 2).float() / 255
        if not len(x):
            return torch.zeros(0, self.num_tokens, self.dim)
        x = interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        value, low = x.amax(1), x.amin(1)
        chroma = value - low
        saturation = chroma / value.clamp(min=1e-6)
        luma = torch.einsum("fchw,c->fhw", x, x.new_tensor(LUMA))
        planes = [x, x.square(), saturation[:, None]]
        planes += [_one_hot(_hue(x, value, chroma)) * saturation[:, None], _one_hot(luma)]
        edges = torch.zeros_like(luma), torch.zeros_like(luma)
        edges[0][..., 1:], edges[1][:, 1:] = luma.diff(dim=-1).abs(), luma.diff(dim=-2).abs()
        stacked = torch.cat([*planes, *(edge[:, None] for edge in edges)], dim=1)
        parts = torch.cat([adaptive_avg_pool2d(stacked, size).flatten(2) for size in (1, GRID)], dim=2).mT  # (F, P, …)
        mean, square, rest = parts.split([3, 3, parts.shape[2] - 6], dim=2)
        return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt(), rest], dim=2)


class HashedWords:
    """Words of a text as fixed vectors: bits of the SHA-256 of a word, and waves of a number.

    No vocabulary: every word has a vector, in any order, and equal words have equal ones. Case and punctuation do not
    matter. All numbers share their bits.
    """

    dim = NUM_HASH_BITS + 2 * NUM_NUMBER_WAVES

    def encode(self, texts: Sequence[str]) -> Condition:
        """Encode texts to tokens (B, L, D), zeros where masked; a text without words has no tokens."""
        assert texts, "there are no texts"
        words = [_WORD.findall(text.lower()) for text in texts]
        length = max(1, *map(len, words))
        tokens, mask = torch.zeros(len(texts), length, self.dim), torch.zeros(len(texts), length, dtype=torch.bool)
        for row, row_words in enumerate(words):
            mask[row, : len(row_words)] = True
            for column, word in enumerate(row_words):
                tokens[row, column] = torch.from_numpy(_word_vector(word))
        return Condition(tokens, mask)


def _hue(x: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """(F, 3, H, W) with its maximum and range over colors → hue (F, H, W), 0–1."""
    red, green, blue = x.unbind(1)
    scale = chroma.clamp(min=1e-6)
    sector = torch.where(
        value == red,
        ((green - blue) / scale) % 6,
        torch.where(value == green, (blue - red) / scale + 2, (red - green) / scale + 4),
    )
    return sector / 6


def _one_hot(values: Tensor) -> Tensor:
    """(F, H, W) within 0–1 → (F, `NUM_BINS`, H, W), 1 in the bin of the value."""
    bins = (values * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    return torch.zeros(len(values), NUM_BINS, *values.shape[1:]).scatter_(1, bins[:, None], 1.0)


def _word_vector(word: str) -> np.ndarray:
    """Return (D,) float32, ±1 for the bits and sines and cosines for the waves; the waves of a word are 0."""
    is_number = word[0].isdigit()
    digest = hashlib.sha256(b"" if is_number else word.encode()).digest()
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:NUM_HASH_BITS] * 2.0 - 1.0
    waves = np.zeros(2 * NUM_NUMBER_WAVES)
    if is_number:
        angles = np.pi / 8 * np.log2(1 + float(word)) * 2.0 ** np.arange(NUM_NUMBER_WAVES)
        waves = np.concatenate([np.sin(angles), np.cos(angles)])
    return np.concatenate([bits, waves]).astype(np.float32)
