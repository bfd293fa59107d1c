"""Decoding of stems at 44.1 kHz: the codec's audio below 5.5 kHz, a Vocos vocoder's above.

The codec's decoder is the more accurate of the two but ends at 8 kHz; Vocos adds the rest. YuE's authors combine the
mixes with two separate second-order filters, which overlap; here low and high pass sum to one, and stems are combined
one by one, so that they sum to the mix.

K codebooks (8), T frames (50 a second), N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import fftconvolve, resample

from v2m.core.audio_ops import peak_excess
from v2m.core.timing import angular_frequency, hop_length
from v2m.pretrained.codecs.base import apply_chunked
from v2m.pretrained.codecs.vocos import Vocos
from v2m.pretrained.codecs.xcodec import XCodec

SAMPLE_RATE = 44100
VOCODER_FILES = {"vocals": "decoders/decoder_131000.pth", "instrumental": "decoders/decoder_151000.pth"}
CROSSOVER_HZ = 5500.0  # Hz, as in YuE's post-processing
FILTER_TAPS = 255  # odd, so that the filter's delay is a whole number of samples
BLOCK_SAMPLES = 1 << 16
SILENCE_RMS = 1e-5  # root mean square below which there is no level to match
GAIN_RANGE = (0.25, 4.0)  # ±12 dB
ZERO_CROSSINGS = 32  # of the resampling filter on each side


def load_vocoders(folder: Path, stems: Iterable[str], device: torch.device) -> dict[str, Vocos]:
    """Load the vocoders of `stems` ("vocals", "instrumental") from a copy of `xcodec_mini_infer`."""
    return {stem: Vocos.load(folder, VOCODER_FILES[stem], device) for stem in stems}


def render(
    codes: Mapping[str, Tensor], codec: XCodec, vocoders: Mapping[str, Vocos], num_samples: int
) -> dict[str, NDArray[np.float32]]:
    """Decode each stem's codes (K, T) to audio (1, `num_samples` ≤ T · 882) at 44.1 kHz.

    The stems sum to the mix; where that would exceed ±1, all of them are attenuated by the same factor.
    """
    stems = {stem: _render_stem(stem_codes, codec, vocoders[stem])[:num_samples] for stem, stem_codes in codes.items()}
    assert all(len(wave) == num_samples for wave in stems.values()), f"the codes are shorter than {num_samples} samples"
    excess = peak_excess(np.asarray(np.sum(list(stems.values()), axis=0, dtype=np.float32)))
    return {stem: (wave / excess)[None].astype(np.float32) for stem, wave in stems.items()}


def _render_stem(codes: Tensor, codec: XCodec, vocoder: Vocos) -> NDArray[np.float32]:
    """(K, T) → (T · 882,)."""
    spec = codec.spec
    hop = vocoder.hop_length
    assert hop == hop_length(SAMPLE_RATE, spec.frame_rate), f"a hop of {hop} is not 44.1 kHz"
    narrow = codec.decode(codes[None])[0, 0]
    low = resample(narrow, spec.sample_rate, SAMPLE_RATE, lowpass_filter_width=ZERO_CROSSINGS)
    high = vocoder.decode(codec.embed(codes[None]))[0, 0]
    return combine_bands(low, high).cpu().numpy()


def combine_bands(low: Tensor, high: Tensor) -> Tensor:
    """Combine `low` (N,) below 5.5 kHz with `high` (N,) above, `low` at the level that `high` has below.

    The low pass is a symmetric FIR filter and the high pass is 1 minus it, so two equal inputs come back unchanged.
    """
    assert low.shape == high.shape, f"{tuple(low.shape)} cannot be joined with {tuple(high.shape)}"
    below, replaced = _low_pass(low), _low_pass(high)
    return high - replaced + _matching_gain(below, replaced) * below


def _matching_gain(wave: Tensor, reference: Tensor) -> float:
    """Gain that matches `wave` to the RMS of `reference`, within `GAIN_RANGE`; 1 for silence."""
    level, target = (float(signal.double().square().mean().sqrt()) for signal in (wave, reference))
    return 1.0 if level < SILENCE_RMS else min(max(target / level, GAIN_RANGE[0]), GAIN_RANGE[1])


def _low_pass(wave: Tensor) -> Tensor:
    """Low-pass (N,) without delay; beyond the ends `wave` is 0."""
    kernel = _low_pass_kernel().to(wave.device)
    return apply_chunked(
        lambda chunk: fftconvolve(chunk, kernel, mode="same"), wave, step=BLOCK_SAMPLES, margin=FILTER_TAPS // 2
    )


@lru_cache(maxsize=1)
def _low_pass_kernel() -> Tensor:
    """Windowed sinc (FILTER_TAPS,), normalized to unit gain at DC."""
    ramp = np.arange(FILTER_TAPS) - FILTER_TAPS // 2
    angle = angular_frequency(CROSSOVER_HZ, SAMPLE_RATE)
    taps = np.sinc(ramp * angle / np.pi) * np.kaiser(FILTER_TAPS, 8.0)
    return torch.from_numpy((taps / taps.sum()).astype(np.float32))
