"""A video → music, by a language model that is shown its pictures: VidMuse, or a model that v2m has trained."""

from v2m.generators.vidmuse.vidmuse import VidMuse

__all__ = ["VidMuse"]
