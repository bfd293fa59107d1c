"""Key estimation, and errors of key and tempo against a reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from v2m.analysis.key_network import key_probabilities
from v2m.analysis.notes import HIGHEST, LOWEST, note_activations
from v2m.core.types import Audio, Floats

Key = tuple[int, str]  # pitch class 0–11 with C = 0, "major" or "minor": as Tags.tonic_and_mode
# Krumhansl & Kessler (1982), Krumhansl, "Cognitive Foundations of Musical Pitch" (1990), table 2.1: from the tonic on
KEY_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
BASS_RANGE = (48, 64), (1.0, 0.0)  # MIDI notes, and how much they count there; linear between
TREBLE_RANGE = (44, 56, 88, 100), (0.0, 1.0, 1.0, 0.0)
TONIC_WEIGHT = 0.5  # of the tonic's share of the bass, against a correlation
TRIAD_WEIGHT = 6.0  # of shares, which differ less from key to key than correlations do
FIRST_TRIAD_WEIGHT = 0.6  # of the tonic's triad among those of the first FIRST_SPANS spans
NETWORK_WEIGHT = 0.15  # of the logarithm of the network's probability
# How much a triad speaks for a key, by its root's interval above the tonic and its mode
TRIADS: Mapping[str, Mapping[tuple[int, str], float]] = {
    "major": {
        **{(0, "major"): 1.0, (5, "major"): 0.6, (7, "major"): 0.7, (9, "minor"): 0.5, (2, "minor"): 0.4},
        **{(4, "minor"): 0.2, (10, "major"): 0.15, (2, "major"): 0.1},
    },
    "minor": {
        **{(0, "minor"): 1.0, (5, "minor"): 0.6, (7, "minor"): 0.4, (7, "major"): 0.5, (8, "major"): 0.6},
        **{(10, "major"): 0.5, (3, "major"): 0.4},
    },
}
TRIAD_FRAMES = 5  # of notes, 0.93 s, over which a triad is judged
TRIAD_ROOT_WEIGHT, TRIAD_SHARPNESS = 0.3, 8.0
FIRST_SPANS = 4  # of TRIAD_FRAMES each, silent ones apart
TEMPO_MULTIPLES = (1.0, 2.0, 0.5, 3.0, 1 / 3)


def estimate_key(audio: Audio) -> Key | None:
    """Return the key that fits the piece best; None for silence.

    Scored are the correlation of profile and pitch classes, the triads that belong to the key, the tonic's share of the
    bass, the first chord, and S-KEY's probability.
    """
    notes = note_activations(audio)
    midi = np.arange(LOWEST, HIGHEST + 1)
    bass, treble = (_pitch_classes(notes * np.interp(midi, *range_)) for range_ in (BASS_RANGE, TREBLE_RANGE))
    classes, bass_classes = (bass + treble).mean(axis=0), bass.mean(axis=0)
    if classes.std() < 1e-9:
        return None
    tonic_share = bass_classes / max(float(bass_classes.sum()), 1e-9)
    spans = _triad_shares(bass, treble)
    triads = dict(zip(KEY_PROFILES, np.split(spans.mean(axis=0), 2), strict=True))
    sounding = spans[spans.any(axis=1)]
    first = dict(zip(KEY_PROFILES, np.split(sounding[:FIRST_SPANS].mean(axis=0), 2), strict=True))
    network = dict(zip(KEY_PROFILES, np.log(key_probabilities(audio)), strict=True))

    def fit(key: Key) -> float:
        tonic, mode = key
        correlation = np.corrcoef(classes, np.roll(KEY_PROFILES[mode], tonic))[0, 1]
        weights = TRIADS[mode].items()
        degrees = sum(weight * triads[of][(tonic + interval) % 12] for (interval, of), weight in weights)
        from_triads = TRIAD_WEIGHT * degrees + FIRST_TRIAD_WEIGHT * first[mode][tonic]
        from_network = NETWORK_WEIGHT * network[mode][tonic]
        return float(correlation + TONIC_WEIGHT * tonic_share[tonic] + from_triads + from_network)

    return max(((tonic, mode) for mode in KEY_PROFILES for tonic in range(12)), key=fit)


def _pitch_classes(notes: Floats) -> Floats:
    """(T, 12) the sums of (T, P) notes by pitch class."""
    return np.asarray(notes @ np.eye(12)[np.arange(LOWEST, HIGHEST + 1) % 12])


def _triad_shares(bass: Floats, treble: Floats) -> Floats:
    """(spans, 24) soft shares of the major triads from C on, then of the minor ones; 0 in silence."""
    spans = max(1, len(bass) // TRIAD_FRAMES)
    bass, treble = (np.stack([part.mean(axis=0) for part in np.array_split(x, spans)]) for x in (bass, treble))
    classes = bass + treble
    classes = classes / np.maximum(np.linalg.norm(classes, axis=1, keepdims=True), 1e-9)
    root_share = bass / np.maximum(bass.sum(axis=1, keepdims=True), 1e-9)
    fits = []
    for third in (4, 3):
        triad = [np.roll(classes, -interval, axis=1) for interval in (0, third, 7)]  # of each pitch class as the root
        fits.append(sum(triad) / np.sqrt(3) + TRIAD_ROOT_WEIGHT * root_share)
    odds = np.exp(TRIAD_SHARPNESS * np.concatenate(fits, axis=1)) * classes.any(axis=1, keepdims=True)
    return odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-9)


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
