"""Interface between the generator and a diffusers pipeline: one request, one adapter per pipeline.

B candidates, C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from v2m.core.types import ProgressFn


@dataclass(frozen=True)
class GenerationRequest:
    """One call of a pipeline: N = `num_samples` at its rate for each of the B = len(`seeds`) candidates.

    melody, reference: (C, N) and (C, any length). source: (B, C, N), known outside the samples `inpaint_range`.
    """

    num_samples: int
    seeds: tuple[int, ...]
    melody: Tensor | None = None
    reference: Tensor | None = None
    source: Tensor | None = None
    inpaint_range: tuple[int, int] = (0, 0)


class PipelineAdapter(Protocol):
    """A diffusers pipeline behind one signature."""

    def defaults(self) -> dict[str, Any]:
        """Number of steps and guidance scale that the pipeline's authors recommend."""
        ...

    def generate(
        self, arguments: dict[str, Any], request: GenerationRequest, melody_strength: float, progress: ProgressFn
    ) -> Tensor:
        """Audio (B, C, N) float32 on the CPU, not limited to ±1; `arguments` are the pipeline's own."""
        ...
