"""Melody of a recording: without drums and bass, where Demucs is on this machine.

As in audiocraft (Copet et al., "Simple and Controllable Music Generation", 2023, section 2.3). Nothing is downloaded
for it; torch is imported only when it is needed.
"""

from __future__ import annotations

from importlib.util import find_spec

from v2m.core.lazy_model import choose_device
from v2m.core.types import Audio, WeightsInfo

MELODY_STEMS = ("vocals", "other")


def find_separator() -> WeightsInfo | None:
    """Demucs' weights, if they and the package are here."""
    if find_spec("demucs") is None:
        return None
    from v2m.pretrained import demucs

    return demucs.find_local()


def isolate_melody(melody: Audio, weights: WeightsInfo | None, device: str) -> tuple[Audio, str]:
    """Isolate the melody of a recording; also returns a description of the method, for the sidecar."""
    if weights is None:
        return melody, "the whole sound"
    from v2m.pretrained.demucs import Demucs

    stems = Demucs.load(weights.folder, choose_device(device)).extract_stems(melody, MELODY_STEMS)
    return stems, f"{' and '.join(MELODY_STEMS)}, separated by {weights.name}"
