"""Training checkpoints (.ckpt): their EMA weights, adapters merged, as a `V2M` model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from v2m.checkpoints import lora
from v2m.checkpoints.components import Component
from v2m.checkpoints.model import V2M
from v2m.checkpoints.visual_input_config import VisualInputConfig
from v2m.core.errors import DependencyError
from v2m.models.music_model import MusicConfig
from v2m.pretrained import safe_load

EXPORT_KEY, EMA_KEY = (
    "v2m",
    "ema",
)  # in a training checkpoint: the description of the model, and its EMA weights
MODEL_PREFIX = "model."  # of the names of its weights


def describe_model(model: V2M) -> dict[str, Any]:
    """Return the description of a model that a training checkpoint stores: plain values."""
    named = {kind: component.name for kind, component in model.components.items() if component.name is not None}
    about = {"sample_rate": model.sample_rate, "license": model.license, "origin": model.origin}
    return {
        "model": model.config.to_dict(),
        "components": named,
        "visual_input": model.visual_input and model.visual_input.to_dict(),
        **about,
    }


def load_training_checkpoint(path: Path) -> V2M:
    """Load the model of a training checkpoint, with EMA weights where it has some.

    Raises:
        DependencyError: It is broken, or no training checkpoint.
    """
    checkpoint = safe_load.read_pickle(path)
    model, state = build_model(checkpoint, f"{str(path)!r}"), model_state(checkpoint, f"{str(path)!r}")
    safe_load.load_strict(model, state, f"the model that {str(path)!r} describes")
    return model.eval()


def check_training_checkpoint(checkpoint: Mapping[str, Any], name: str) -> None:
    """Raise DependencyError for what training has not saved."""
    if not all(isinstance(checkpoint.get(key), Mapping) for key in (EXPORT_KEY, "state_dict")):
        raise DependencyError(f"{name} is no training checkpoint of v2m")


def ema_state(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the weights of a training checkpoint, EMA where it has some; `name` is the checkpoint's in errors.

    Raises:
        DependencyError: There are none, or values that are not finite.
    """
    check_training_checkpoint(checkpoint, name)
    state = {**checkpoint["state_dict"], **checkpoint.get(EMA_KEY, {})}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{name} holds weights that are no tensors")
    safe_load.check_finite(state, name)
    return state


def model_state(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the EMA weights under the names of `build_model`'s model, adapters merged. Raises DependencyError."""
    state = {key.removeprefix(MODEL_PREFIX): value for key, value in ema_state(checkpoint, name).items()}
    about = checkpoint[EXPORT_KEY].get("lora")
    return state if about is None else lora.merge_adapters(about, state, name)


def build_model(checkpoint: Mapping[str, Any], name: str) -> V2M:
    """Build the model that a training checkpoint describes, without its weights. Raises DependencyError."""
    check_training_checkpoint(checkpoint, name)
    about = checkpoint[EXPORT_KEY]
    try:
        config, shown = MusicConfig.from_dict(about["model"]), about["visual_input"]
        return V2M(
            config,
            components={kind: Component(name) for kind, name in about["components"].items()},
            sample_rate=about["sample_rate"],
            license=about["license"],
            origin=about["origin"],
            visual_input=None if shown is None else VisualInputConfig.from_dict(shown),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(f"{name} describes a model that cannot be ({error})") from None
