"""Checkpoints of the music model: loaded from and written to every layout it is published in."""

from v2m.checkpoints.components import Component
from v2m.checkpoints.model import V2M
from v2m.checkpoints.visual_input_config import VisualInputConfig

__all__ = ["V2M", "Component", "VisualInputConfig"]
