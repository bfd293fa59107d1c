"""Diffusion pipelines of diffusers: ACE-Step 1.5, Stable Audio Open and Stable Audio 3."""

from v2m.generators.diffusers.pipeline import DiffusersGenerator

__all__ = ["DiffusersGenerator"]
