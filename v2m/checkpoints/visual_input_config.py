"""How a model that sees was shown its videos in training, which is how it is to be shown them in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Shown:
    """Of the shards that it was trained on (`v2m.data.schema.Manifest`), or as its authors published.

    Args:
        pool: Which tokens of a frame the vision encoder gives: "all" or "grid".
        aspect: How a frame becomes a square: "squash", "crop" or "pad".
        frame_rate: Frames a second of the window.
        whole: Frames of the whole video.
        rhythm_rate: Instants a second of the rhythm.
        rhythm: Names of what is measured at each; none for a model that does not look at it.
    """

    pool: str = "grid"
    aspect: str = "squash"
    frame_rate: float = 2.0
    whole: int = 64
    rhythm_rate: float = 20.0
    rhythm: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rhythm", tuple(self.rhythm))  # a YAML gives a list
        numbers = {name: getattr(self, name) for name in ("frame_rate", "whole", "rhythm_rate")}
        problems = [f"{name} {value!r} must be above 0" for name, value in numbers.items() if not _positive(value)]
        if problems:
            raise ValueError("shown: " + "; ".join(problems))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Shown:
        """From what a YAML holds; the opposite of `plain`. Raises ValueError or TypeError for what cannot be."""
        return cls(**plain)

    @property
    def plain(self) -> dict[str, Any]:
        """Numbers, strings and lists only."""
        return asdict(self) | {"rhythm": list(self.rhythm)}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


VIDMUSE = Shown(pool="all")  # as published: 2 frames a second, squashed to a square; 64 of the whole video in training
