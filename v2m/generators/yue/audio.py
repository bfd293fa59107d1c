"""From codes to sound: the codec's own 16 kHz below 5.5 kHz, Vocos above, joined stem by stem at 44.1 kHz.

The codec's decoder is the truer of the two where it reaches; Vocos adds what lies above. YuE's authors join the mixes
with two separate second-order filters, which overlap; here low and high pass sum to one, and stems are joined one by
one, so that they sum to the mix.

K codebooks (8), T frames (50 a second), N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import fftconvolve, resample

from v2m.core.timing import angular_frequency, hop_length
from v2m.pretrained.codecs import xcodec_files
from v2m.pretrained.codecs.chunking import apply_chunked
from v2m.pretrained.codecs.vocos import Vocos
from v2m.pretrained.codecs.xcodec import XCodec

SAMPLE_RATE = 44100
VOCODER_FILES = {"vocals": xcodec_files.VOCALS_VOCODER, "instrumental": xcodec_files.INSTRUMENTAL_VOCODER}
CROSSOVER_HZ = 5500.0  # Hz, as in YuE's post-processing
FILTER_TAPS = 255  # odd, so that the filter's delay is a whole number of samples
BLOCK_SAMPLES = 1 << 16
SILENCE_RMS = 1e-5  # root mean square below which there is no level to match
GAIN_RANGE = (0.25, 4.0)  # how far a level is matched: ±12 dB
ZERO_CROSSINGS = 32  # of the resampling filter on each side

logger = logging.getLogger(__name__)


def load_vocoders(folder: Path, stems: Iterable[str], device: torch.device) -> dict[str, Vocos]:
    """The decoder of each of `stems` ("vocals", "instrumental") out of a copy of `m-a-p/xcodec_mini_infer`.

    Raises:
        DependencyError: Files are missing, broken, or of another model; says which.
    """
    return {stem: Vocos.load(folder, VOCODER_FILES[stem], device) for stem in stems}


def render(
    codes: Mapping[str, Tensor], codec: XCodec, vocoders: Mapping[str, Vocos], num_samples: int
) -> dict[str, NDArray[np.float32]]:
    """Each stem's codes (K, T) → its sound (1, `samples`) at 44.1 kHz.

    The stems sum to the mix; where that would exceed ±1, all of them are made quieter by the same factor.

    Args:
        codes: By stem; only these are rendered.
        codec: The codec that the codes belong to.
        decoders: By stem, as `vocoders` gives them.
        samples: At most T · 882.
    """
    stems = {stem: _render_stem(each, codec, vocoders[stem])[:num_samples] for stem, each in codes.items()}
    assert all(len(wave) == num_samples for wave in stems.values()), f"the codes are shorter than {num_samples} samples"
    mix = np.sum(list(stems.values()), axis=0, dtype=np.float32)
    peak = float(np.abs(mix).max(initial=0.0))
    if peak > 1.0:
        logger.info("the mix peaked at %.2f and was made quieter", peak)
    return {stem: (wave / max(peak, 1.0))[None].astype(np.float32) for stem, wave in stems.items()}


def _render_stem(codes: Tensor, codec: XCodec, vocoder: Vocos) -> NDArray[np.float32]:
    """(K, T) → (T · 882,)."""
    spec = codec.spec
    assert vocoder.hop_length == hop_length(SAMPLE_RATE, spec.frame_rate), (
        f"a hop of {vocoder.hop_length} is not 44.1 kHz"
    )
    narrow = codec.decode(codes[None])[0, 0]
    low = resample(narrow, spec.sample_rate, SAMPLE_RATE, lowpass_filter_width=ZERO_CROSSINGS)
    high = vocoder.decode(codec.embed(codes[None]))[0, 0]
    return combine_bands(low, high).cpu().numpy()


def combine_bands(low: Tensor, high: Tensor) -> Tensor:
    """What lies below 5.5 kHz of `low` (N,) with what lies above of `high` (N,), at the level that `high` has below.

    The low pass is a symmetric FIR filter and the high pass is 1 minus it, so two equal inputs come back as they were.
    """
    assert low.shape == high.shape, f"{tuple(low.shape)} cannot be joined with {tuple(high.shape)}"
    below, replaced = _low_pass(low), _low_pass(high)
    return high - replaced + _matching_gain(below, replaced) * below


def _matching_gain(wave: Tensor, reference: Tensor) -> float:
    """The gain that brings `wave` to the level of `wanted`, within `GAINS`; 1 where there is nothing to bring."""
    level, target = (float(each.double().square().mean().sqrt()) for each in (wave, reference))
    return 1.0 if level < SILENCE_RMS else min(max(target / level, GAIN_RANGE[0]), GAIN_RANGE[1])


def _low_pass(wave: Tensor) -> Tensor:
    """(N,) → (N,), not delayed; beyond the ends `wave` is 0."""
    kernel = _low_pass_kernel().to(wave.device)
    return apply_chunked(
        lambda piece: fftconvolve(piece, kernel, mode="same"), wave, step=BLOCK_SAMPLES, margin=FILTER_TAPS // 2
    )


@lru_cache(maxsize=1)
def _low_pass_kernel() -> Tensor:
    """(TAPS,) of a windowed sinc whose sum is 1 (constant offsets pass whole)."""
    ramp = np.arange(FILTER_TAPS) - FILTER_TAPS // 2
    angle = angular_frequency(CROSSOVER_HZ, SAMPLE_RATE)
    taps = np.sinc(ramp * angle / np.pi) * np.kaiser(FILTER_TAPS, 8.0)
    return torch.from_numpy((taps / taps.sum()).astype(np.float32))
