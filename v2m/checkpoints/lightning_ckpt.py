"""Out of training: a training checkpoint's averaged weights, adapters merged, as a checkpoint of our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from v2m.checkpoints import lora
from v2m.checkpoints.components import Part
from v2m.checkpoints.model import V2M
from v2m.checkpoints.visual_input_config import Shown
from v2m.core.errors import DependencyError
from v2m.models.music_model import MusicConfig
from v2m.pretrained import safe_load

EXPORT, AVERAGE = "v2m", "ema"  # in a training checkpoint: what the model is, and its weights averaged over the steps
PREFIX = "model."  # of its weights' names


def described(model: V2M) -> dict[str, Any]:
    """What a training checkpoint says of its model: plain values."""
    named = {kind: part.name for kind, part in model.parts.items() if part.name is not None}
    about = {"sample_rate": model.sample_rate, "license": model.license, "origin": model.origin}
    return {"model": model.config.to_dict(), "parts": named, "shown": model.shown and model.shown.plain, **about}


def read(path: Path) -> V2M:
    """The model of a training checkpoint, with the averaged weights where it has some.

    Raises:
        MissingError: It is broken, or no training checkpoint.
    """
    held = safe_load.read_pickle(path)
    model, state = made(held, f"{str(path)!r}"), plain(held, f"{str(path)!r}")
    safe_load.load_strict(model, state, f"the model that {str(path)!r} describes")
    return model.eval()


def check(held: Mapping[str, Any], name: str) -> None:
    """Raises MissingError for what training has not saved."""
    if not all(isinstance(held.get(each), Mapping) for each in (EXPORT, "state_dict")):
        raise DependencyError(f"{name} is no training checkpoint of v2m")


def averaged(held: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The weights in a training checkpoint, averaged where they were; `name` is that of the checkpoint in errors.

    Raises:
        MissingError: There are none, or values that are no numbers.
    """
    check(held, name)
    state = {**held["state_dict"], **held.get(AVERAGE, {})}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{name} holds weights that are no tensors")
    safe_load.check_finite(state, name)
    return state


def plain(held: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The averaged weights by the names that `made`'s model has for them, adapters merged. Raises MissingError."""
    state = {key.removeprefix(PREFIX): value for key, value in averaged(held, name).items()}
    about = held[EXPORT].get("lora")
    return state if about is None else lora.merged(about, state, name)


def made(held: Mapping[str, Any], name: str) -> V2M:
    """The model that a training checkpoint describes, without its weights. Raises MissingError."""
    check(held, name)
    about = held[EXPORT]
    try:
        config, shown = MusicConfig.from_dict(about["model"]), about["shown"]
        return V2M(
            config,
            parts={kind: Part(name) for kind, name in about["parts"].items()},
            sample_rate=about["sample_rate"],
            license=about["license"],
            origin=about["origin"],
            shown=None if shown is None else Shown.of(shown),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(f"{name} describes a model that cannot be ({error})") from None
