"""Checkpoints of the music model: loaded from and written to every layout it is published in."""

from v2m.checkpoints.components import Component, VisualInputConfig
from v2m.checkpoints.model import V2M

__all__ = ["V2M", "Component", "VisualInputConfig"]
