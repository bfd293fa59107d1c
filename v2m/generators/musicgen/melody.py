"""What of a recording carries its tune: not drums and bass, where what tells them apart is on this machine.

As in audiocraft (Copet et al., "Simple and Controllable Music Generation", 2023, section 2.3). Nothing is downloaded
for it, and torch is not imported before it is needed.
"""

from __future__ import annotations

from importlib.util import find_spec

from v2m.core.lazy_model import choose_device
from v2m.core.types import Audio, WeightsInfo

MELODY_STEMS = ("vocals", "other")


def find_separator() -> WeightsInfo | None:
    """The weights that tell stems apart, if they and their package are here."""
    if find_spec("demucs") is None:
        return None
    from v2m.pretrained import demucs

    return demucs.find_local()


def isolate_melody(melody: Audio, weights: WeightsInfo | None, device: str) -> tuple[Audio, str]:
    """The tune of a sound, and what it is of that sound, for the sidecar."""
    if weights is None:
        return melody, "the whole sound"
    from v2m.pretrained.demucs import Demucs

    found = Demucs.load(weights.folder, choose_device(device)).extract_stems(melody, MELODY_STEMS)
    return found, f"{' and '.join(MELODY_STEMS)}, told apart by {weights.name}"
