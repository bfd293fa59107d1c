"""v2m: a video in, the same video with music out; and the training of the model that writes that music."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v2m.checkpoint import V2M
    from v2m.score import score_video
    from v2m.types import Audio, Score, Tags, Video

__version__ = "0.1.0"
__all__ = ["V2M", "Audio", "Score", "Tags", "Video", "score_video"]
_HOMES = {"V2M": "v2m.checkpoint", "score_video": "v2m.score"}  # of the others v2m.types


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "v2m.types")), name)
    raise AttributeError(f"module 'v2m' has no attribute {name!r}")
