"""MusicGen: a line of text, and a melody if there is one → music, by one language model over the codes of a codec."""

from v2m.generators.musicgen.musicgen import MusicGen

__all__ = ["MusicGen"]
