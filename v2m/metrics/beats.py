"""Beats of a finished piece, as heard from its sound alone."""

from __future__ import annotations

from importlib.util import find_spec

from v2m.metrics.fit import HOPS_PER_SECOND, onset_strength
from v2m.types import Audio, Floats


def heard_beats(audio: Audio) -> Floats | None:
    """(B,) seconds, by librosa's tracker (Ellis, "Beat Tracking by Dynamic Programming", 2007); empty where nothing
    begins anywhere, None where librosa is not installed. Its first use in a process takes seconds."""
    if find_spec("librosa") is None:
        return None
    import librosa

    return librosa.beat.beat_track(
        onset_envelope=onset_strength(audio), sr=HOPS_PER_SECOND, hop_length=1, units="time"
    )[1].astype(float)
