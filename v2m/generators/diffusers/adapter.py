"""One go of a pipeline: what is to be written, and what stands already.

B takes, C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from v2m.core.types import ProgressFn


@dataclass(frozen=True)
class GenerationRequest:
    """N = `samples` at the pipeline's rate for each of the B = len(`seeds`) takes.

    melody, reference: (C, N) and (C, any length). kept: (B, C, N), of which all but the samples `span` is to stay.
    """

    num_samples: int
    seeds: tuple[int, ...]
    melody: Tensor | None = None
    reference: Tensor | None = None
    source: Tensor | None = None
    inpaint_range: tuple[int, int] = (0, 0)


class PipelineAdapter(Protocol):
    """A pipeline with what it must be told."""

    def defaults(self) -> dict[str, Any]:
        """Steps and guidance that the pipeline's authors recommend."""
        ...

    def generate(
        self, arguments: dict[str, Any], request: GenerationRequest, melody_strength: float, progress: ProgressFn
    ) -> Tensor:
        """Sound (B, C, N) float32 on the CPU, not limited to ±1. `told` are the pipeline's own arguments."""
        ...
