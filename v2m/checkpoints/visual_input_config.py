"""How a model that sees was shown its videos in training, which is how it is to be shown them in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class VisualInputConfig:
    """Of the shards that it was trained on (`v2m.data.schema.Manifest`), or as its authors published.

    Args:
        pool: Which tokens of a frame the vision encoder gives: "all" or "grid".
        aspect: How a frame becomes a square: "squash", "crop" or "pad".
        frame_rate: Frames a second of the window.
        whole: Frames of the whole video.
        rhythm_rate: Instants a second of the rhythm.
        rhythm: Names of what is measured at each; none for a model that does not look at it.
    """

    pooling: str = "grid"
    aspect: str = "squash"
    fps: float = 2.0
    num_long_term_frames: int = 64
    event_rate: float = 20.0
    event_channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_channels", tuple(self.event_channels))  # a YAML gives a list
        numbers = {name: getattr(self, name) for name in ("fps", "num_long_term_frames", "event_rate")}
        problems = [f"{name} {value!r} must be above 0" for name, value in numbers.items() if not _positive(value)]
        if problems:
            raise ValueError("visual_input: " + "; ".join(problems))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VisualInputConfig:
        """From what a YAML holds; the opposite of `plain`. Raises ValueError or TypeError for what cannot be."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only."""
        return asdict(self) | {"event_channels": list(self.event_channels)}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


VIDMUSE_VISUAL_INPUT = VisualInputConfig(
    pooling="all"
)  # as published: 2 frames a second, squashed to a square; 64 of the whole video in training
