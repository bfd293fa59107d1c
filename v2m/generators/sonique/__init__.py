"""Tags → music by latent diffusion: a piece is made out of noise, all of a window at once."""

from v2m.generators.sonique.sonique import Sonique

__all__ = ["Sonique"]
