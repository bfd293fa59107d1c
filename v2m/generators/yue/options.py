"""How stage 1 draws its codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class YuESampling:
    """How the next code is drawn. Temperature 0 takes the likeliest; guidance 1 is none; top_k 0 and top_p 1 are all.

    top_k is the default of transformers, which the published script does not change. guidance: of the first section,
    and of those after it.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.93
    repetition_penalty: float = 1.1
    cfg_scale: tuple[float, float] = (1.5, 1.2)
