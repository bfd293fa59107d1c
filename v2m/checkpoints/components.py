"""Frozen models that go with a music model: stored in its checkpoint, or named and fetched later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from v2m.pretrained import safe_load

_WEIGHT_FILES = ("model*.safetensors|pytorch_model*.bin", "model.safetensors.index.json|pytorch_model.bin.index.json|")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "added_tokens.json",
)
PREPROCESSOR_CONFIG = "preprocessor_config.json"
REQUIRED_FILES: dict[str, tuple[str, ...]] = {  # by kind of component: files to fetch of its repository
    "text_encoder": (
        "config.json",
        *_WEIGHT_FILES,
        "tokenizer.json|spiece.model",
        "spiece.model|",
        *(f"{name}|" for name in TOKENIZER_FILES[1:3]),
    ),
    "codec": (
        "config.json|compression_state_dict.bin",
        "model*.safetensors|pytorch_model*.bin|compression_state_dict.bin",
        _WEIGHT_FILES[1],
        f"{PREPROCESSOR_CONFIG}|",
    ),
    "vision_encoder": ("config.json", *_WEIGHT_FILES, f"{PREPROCESSOR_CONFIG}|"),
}
COMPONENT_KINDS = tuple(REQUIRED_FILES)


@dataclass(frozen=True)
class Component:
    """A frozen model in transformers' format: either it has a `name`, or its checkpoint stores it.

    Args:
        name: A folder or a repository of the hub to fetch it from; None where the checkpoint stores it.
        folder: Its files: a tokenizer's, and config.json and weights where these are not given here.
        config: In place of its config.json.
        state: Its weights.
    """

    name: str | None = None
    folder: Path | None = None
    config: Mapping[str, Any] | None = None
    state: Mapping[str, Tensor] | None = None

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """Return its config and weights, from its folder where they are not given.

        Raises:
            DependencyError: A file is missing or broken; names it.
        """
        if self.config is not None and self.state is not None:
            return self.config, self.state
        assert self.folder is not None, f"{self.name} has not been fetched"
        return safe_load.read_json(self.folder / "config.json"), safe_load.read_state_dict(self.folder)
