"""Background music for videos, and training of the model that writes it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v2m.checkpoints import V2M
    from v2m.core.types import Audio, Soundtrack, Tags, Video
    from v2m.pipeline.score import inpaint, score_video

__version__ = "0.1.0"
__all__ = ["V2M", "Audio", "Soundtrack", "Tags", "Video", "inpaint", "score_video"]
# The home of each public name that is not in v2m.core.types.
_HOMES = {
    "V2M": "v2m.checkpoints",
    "score_video": "v2m.pipeline.score",
    "inpaint": "v2m.pipeline.score",
}


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "v2m.core.types")), name)
    raise AttributeError(f"module 'v2m' has no attribute {name!r}")
