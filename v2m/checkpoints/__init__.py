"""The model that learns with where it came from: read from and written to any of the layouts it is published in."""

from v2m.checkpoints.components import Component
from v2m.checkpoints.model import V2M
from v2m.checkpoints.visual_input_config import VisualInputConfig

__all__ = ["V2M", "Component", "VisualInputConfig"]
