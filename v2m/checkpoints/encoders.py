"""Loading of the vision and text encoders that a music model or a dataset names."""

from __future__ import annotations

import torch

from v2m.checkpoints.components import Component
from v2m.core.protocols import TextEncoder, VisionEncoder
from v2m.pretrained.builtin_encoders import FRAME_STATISTICS, HASHED_WORDS, FrameStatistics, HashedWords


def load_vision_encoder(
    component: Component, device: torch.device, *, name: str, pooling: str, aspect: str
) -> VisionEncoder:
    """Load a vision encoder that has been fetched, or a built-in one.

    `name` is that in datasets and checkpoints. Raises DependencyError where it is broken, UsageError for another
    `pooling` or `aspect` than it has.
    """
    if component.name == FRAME_STATISTICS:
        return FrameStatistics(pooling, aspect)
    from v2m.pretrained.vision import FrozenVisionEncoder

    assert component.folder is not None, "a component that was asked for has been fetched"
    return FrozenVisionEncoder.load(
        component.folder, device, name=name, pooling=pooling, aspect=aspect,  # type: ignore[arg-type] - checked there
        config=component.config, state=component.state,
    )  # fmt: skip


def load_text_encoder(component: Component, device: torch.device) -> TextEncoder:
    """Load a text encoder that has been fetched, or a built-in one.

    Raises DependencyError where it is broken.
    """
    if component.name == HASHED_WORDS:
        return HashedWords()
    from v2m.pretrained.text import T5TextEncoder

    assert component.folder is not None, "a component that was asked for has been fetched"
    return T5TextEncoder.load(component.folder, device, config=component.config, state=component.state)
