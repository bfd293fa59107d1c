"""Config of the visual inputs that a model was trained with, and has to be used with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class VisualInputConfig:
    """Settings of the visual inputs: of the shards (`v2m.data.schema.Manifest`), or as the model's authors published.

    Args:
        pooling: Tokens of a frame that the vision encoder returns: "all" or "grid".
        aspect: How a frame becomes a square: "squash", "crop" or "pad".
        fps: Short-term frames per second of the window.
        num_long_term_frames: Frames of the whole video.
        event_rate: Instants per second of the visual events.
        event_channels: Names of the events' channels; none for a model without events.
    """

    pooling: str = "grid"
    aspect: str = "squash"
    fps: float = 2.0
    num_long_term_frames: int = 64
    event_rate: float = 20.0
    event_channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_channels", tuple(self.event_channels))  # YAML gives a list
        numbers = {name: getattr(self, name) for name in ("fps", "num_long_term_frames", "event_rate")}
        problems = [f"{name} {value!r} must be above 0" for name, value in numbers.items() if not _positive(value)]
        if problems:
            raise ValueError("visual_input: " + "; ".join(problems))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VisualInputConfig:
        """Make a config of YAML values, the inverse of `to_dict`. Raises ValueError or TypeError for invalid ones."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings and lists only."""
        return asdict(self) | {"event_channels": list(self.event_channels)}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


# as published: 2 frames per second, squashed to a square; 64 of the whole video in training
VIDMUSE_VISUAL_INPUT = VisualInputConfig(pooling="all")
