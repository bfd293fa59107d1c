"""User options of stage 1's sampling."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class YuESampling:
    """Sampling of the codes; temperature 0 is greedy, cfg_scale 1 no guidance, top_k 0 and top_p 1 all codes.

    top_k is the default of transformers, which the published script does not change. cfg_scale: of the first section,
    and of those after it.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.93
    repetition_penalty: float = 1.1
    cfg_scale: tuple[float, float] = (1.5, 1.2)
