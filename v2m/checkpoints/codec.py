"""Loading of the codec that a music model names or stores."""

from __future__ import annotations

import torch

from v2m.checkpoints.components import Component
from v2m.core.protocols import Codec
from v2m.pretrained.codecs.score import ScoreCodec, ScoreCodecConfig


def load_codec(component: Component, device: torch.device) -> Codec:
    """Load a codec that has been fetched: the score codec, or EnCodec.

    Raises DependencyError where it is broken.
    """
    config = component.score_config()
    if config is not None:
        return ScoreCodec(ScoreCodecConfig.from_dict(config))
    from v2m.pretrained.codecs.encodec import load_encodec

    assert component.folder is not None, "a component that was asked for has been fetched"
    return load_encodec(component.folder, device, config=component.config, state=component.state)
