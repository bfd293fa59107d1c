"""Frozen components of a music model, and the config of its visual inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from v2m.pretrained import safe_load
from v2m.pretrained.builtin_encoders import FRAME_STATISTICS, HASHED_WORDS
from v2m.pretrained.codecs import score

SAFETENSORS_GLOB, PICKLE_GLOB = "model*.safetensors", "pytorch_model*.bin"
COMPRESSION_FILE = "compression_state_dict.bin"  # audiocraft's name of a codec
PREPROCESSOR_CONFIG = "preprocessor_config.json"
_TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
TOKENIZER_FILES = ("tokenizer.json", *_TOKENIZER_CONFIGS, "spiece.model", "added_tokens.json")
_WEIGHTS = f"{SAFETENSORS_GLOB}|{PICKLE_GLOB}"
WEIGHTS_INDEX = f"{safe_load.SAFETENSORS_INDEX}|{safe_load.PICKLE_INDEX}|"
_TOKENIZER = ("tokenizer.json|spiece.model", "spiece.model|", *(f"{name}|" for name in _TOKENIZER_CONFIGS))
REQUIRED_FILES: dict[str, tuple[str, ...]] = {  # by kind of component: files to fetch of its repository
    "text_encoder": ("config.json", _WEIGHTS, WEIGHTS_INDEX, *_TOKENIZER),
    "codec": (
        f"config.json|{COMPRESSION_FILE}",
        f"{_WEIGHTS}|{COMPRESSION_FILE}",
        WEIGHTS_INDEX,
        f"{PREPROCESSOR_CONFIG}|",
    ),
    "vision_encoder": ("config.json", _WEIGHTS, WEIGHTS_INDEX, f"{PREPROCESSOR_CONFIG}|"),
    "style_encoder": (f"config.json|{COMPRESSION_FILE}", f"{_WEIGHTS}|{COMPRESSION_FILE}", WEIGHTS_INDEX),
}
COMPONENT_KINDS = tuple(REQUIRED_FILES)
BUILT_IN = {*score.NAMED_CONFIGS, FRAME_STATISTICS, HASHED_WORDS}


@dataclass(frozen=True)
class Component:
    """A frozen model in transformers' format: either it has a `name`, or its checkpoint stores it.

    Those of `BUILT_IN` have a name and no files; the score codec may be a config.json alone.
    """

    name: str | None = None  # a folder or a repository of the hub to fetch it from
    folder: Path | None = None  # of a tokenizer's files, and config.json and weights where these are not given here
    config: Mapping[str, Any] | None = None
    state: Mapping[str, Tensor] | None = None

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """Return its config and weights, from its folder where they are not given; a score codec has none."""
        if (config := self.score_config()) is not None:
            return config, {}
        if self.config is not None and self.state is not None:
            return self.config, self.state
        assert self.folder is not None, f"{self.name} has not been fetched"
        return safe_load.read_json(self.folder / "config.json"), safe_load.read_state_dict(self.folder)

    @property
    def is_built_in(self) -> bool:
        """True where no files are needed."""
        return self.name in BUILT_IN

    def score_config(self) -> Mapping[str, Any] | None:
        """Return the config of a score codec; None for another model."""
        if self.name in score.NAMED_CONFIGS:
            return score.NAMED_CONFIGS[self.name].to_dict()
        config = self.config
        if config is None and self.folder is not None and (self.folder / "config.json").is_file():
            config = safe_load.read_json(self.folder / "config.json")
        return config if config is not None and config.get("model_type") == score.MODEL_TYPE else None


@dataclass(frozen=True)
class VisualInputConfig:
    """Settings of the visual inputs that a model was trained with, and has to be used with.

    Args:
        pooling: Tokens of a frame that the vision encoder returns: "all" or "grid".
        aspect: How a frame becomes a square: "squash", "crop", "pad", or "vidmuse", which decides on the times, too.
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
        rates = {"fps": self.fps, "num_long_term_frames": self.num_long_term_frames, "event_rate": self.event_rate}
        problems = [
            f"{name} {value!r} must be above 0"
            for name, value in rates.items()
            if not isinstance(value, int | float) or value <= 0
        ]
        if problems:
            raise ValueError(f"visual_input: {'; '.join(problems)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VisualInputConfig:
        """Return the config of YAML values; invalid ones raise ValueError or TypeError."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return YAML values, the inverse of `from_dict`."""
        return asdict(self) | {"event_channels": list(self.event_channels)}


# as published: 2 frames per second, squashed to a square; 64 of the whole video in training
VIDMUSE_VISUAL_INPUT = VisualInputConfig(pooling="all", aspect="vidmuse")
