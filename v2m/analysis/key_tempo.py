"""Key estimation, and errors of key and tempo against a reference."""

from __future__ import annotations

import warnings

import numpy as np

from v2m.core.compat import import_librosa
from v2m.core.types import Audio, Floats

Key = tuple[int, str]  # pitch class 0–11 with C = 0, "major" or "minor": as Tags.tonic_and_mode
# Krumhansl & Kessler (1982), Krumhansl, "Cognitive Foundations of Musical Pitch" (1990), table 2.1: from the tonic on
KEY_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
FFT_SIZE = 1 << 14
TEMPO_MULTIPLES = (1.0, 2.0, 0.5, 3.0, 1 / 3)


def estimate_key(audio: Audio) -> Key | None:
    """Return the key whose profile correlates most with the piece's pitch classes; None for silence."""
    librosa = import_librosa()

    mono = audio.samples.mean(axis=0)
    if len(mono) < FFT_SIZE or not mono.any():
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Trying to estimate tuning")  # of noise, which has none
        chroma = librosa.feature.chroma_stft(
            y=mono, sr=audio.sample_rate, n_fft=FFT_SIZE, hop_length=FFT_SIZE // 4, norm=None
        )
    classes = np.sqrt(chroma).mean(axis=1)
    if classes.std() < 1e-9:
        return None
    keys = [(tonic, mode) for mode in KEY_PROFILES for tonic in range(12)]
    return max(keys, key=lambda key: np.corrcoef(classes, np.roll(KEY_PROFILES[key[1]], key[0]))[0, 1])


def key_score(estimate: Key, reference: Key) -> float:
    """Return MIREX's key score: 1 the same, 0.5 a fifth apart, 0.3 relative, 0.2 parallel, else 0."""
    (tonic, mode), (reference_tonic, reference_mode) = estimate, reference
    interval = (tonic - reference_tonic) % 12
    if mode == reference_mode:
        return {0: 1.0, 5: 0.5, 7: 0.5}.get(interval, 0.0)
    if interval == 0:
        return 0.2
    return 0.3 if interval == (9 if mode == "minor" else 3) else 0.0


def tempo_error(estimate: float, reference: float) -> float:
    """Return the relative error of a tempo to `reference` or its double, half, triple or third.

    MIREX counts ≤ 0.04 as right (accuracy 2); a third counts as in Gouyon et al. (2006).
    """
    ratios: Floats = np.array([estimate / (reference * octave) for octave in TEMPO_MULTIPLES])
    return float(np.abs(ratios - 1).min())
