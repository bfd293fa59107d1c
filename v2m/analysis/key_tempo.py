"""Key estimation, and errors of key and tempo against a reference."""

from __future__ import annotations

import numpy as np

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
TONIC_WEIGHT = 1.0  # of the tonic's share of the bass, against a correlation
TEMPO_MULTIPLES = (1.0, 2.0, 0.5, 3.0, 1 / 3)


def estimate_key(audio: Audio) -> Key | None:
    """Return the key whose profile fits the piece's notes best; None for silence.

    Scored are the correlation of profile and pitch classes, and the tonic's share of the bass. The weights were chosen
    on 20 pieces of Sketch, each in three SoundFonts.
    """
    notes = note_activations(audio).mean(axis=0)
    if notes.std() < 1e-9:
        return None
    midi = np.arange(LOWEST, HIGHEST + 1)
    bass, treble = (_pitch_classes(notes * np.interp(midi, *range_)) for range_ in (BASS_RANGE, TREBLE_RANGE))
    classes, bass_share = bass + treble, bass / max(float(bass.sum()), 1e-9)

    def fit(key: Key) -> float:
        correlation = np.corrcoef(classes, np.roll(KEY_PROFILES[key[1]], key[0]))[0, 1]
        return float(correlation + TONIC_WEIGHT * bass_share[key[0]])

    return max(((tonic, mode) for mode in KEY_PROFILES for tonic in range(12)), key=fit)


def _pitch_classes(notes: Floats) -> Floats:
    return np.bincount(np.arange(LOWEST, HIGHEST + 1) % 12, notes, minlength=12)


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
