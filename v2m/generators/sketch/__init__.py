"""Sketch: the built-in arranger, the default generator."""

from v2m.generators.sketch.sketch import Sketch

__all__ = ["Sketch"]
