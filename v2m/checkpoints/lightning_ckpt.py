"""Training checkpoints (.ckpt): their EMA weights as a `V2M` model, with LoRA adapters merged.

A checkpoint with LoRA adapters names their base model and its hash instead of storing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from v2m.checkpoints.components import Component, VisualInputConfig
from v2m.checkpoints.model import V2M
from v2m.core.errors import DependencyError, UsageError
from v2m.models import lora
from v2m.models.lora import LoRAConfig
from v2m.models.music_model import MusicConfig
from v2m.pretrained import safe_load

EXPORT_KEY, EMA_KEY = "v2m", "ema"  # in a training checkpoint: the description of the model, and its EMA weights
MODEL_PREFIX = "model."  # of the names of its weights


def describe_model(model: V2M) -> dict[str, Any]:
    """Return the description of a model that a training checkpoint stores: plain values."""
    named = {kind: component.name for kind, component in model.components.items() if component.name is not None}
    return {
        "model": model.config.to_dict(),
        "components": named,
        "visual_input": model.visual_input and model.visual_input.to_dict(),
        **model.provenance,
    }


def load_training_checkpoint(path: Path) -> V2M:
    """Load a training checkpoint's model, EMA if it has any. Raises DependencyError if it is broken."""
    checkpoint, name = safe_load.read_pickle(path), repr(str(path))
    model, state = build_model(checkpoint, name), model_state(checkpoint, name)
    safe_load.load_strict(model, state, f"the model that {name} describes")
    return model.eval()


def check_training_checkpoint(checkpoint: Mapping[str, Any], name: str) -> None:
    """Raise DependencyError for what training has not saved."""
    if not all(isinstance(checkpoint.get(key), Mapping) for key in (EXPORT_KEY, "state_dict")):
        raise DependencyError(f"{name} is no training checkpoint of v2m")


def ema_state(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the weights, EMA where there are some. Raises DependencyError where they are unusable."""
    check_training_checkpoint(checkpoint, name)
    state = {**checkpoint["state_dict"], **checkpoint.get(EMA_KEY, {})}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{name} holds weights that are no tensors")
    safe_load.check_finite(state, name)
    return state


def model_state(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the EMA weights under the names of `build_model`'s model, adapters merged."""
    state = {key.removeprefix(MODEL_PREFIX): value for key, value in ema_state(checkpoint, name).items()}
    adapters = checkpoint[EXPORT_KEY].get("lora")
    return state if adapters is None else merge_adapters(adapters, state, name)


def build_model(checkpoint: Mapping[str, Any], name: str) -> V2M:
    """Build the model that a training checkpoint describes, without its weights. Raises DependencyError."""
    check_training_checkpoint(checkpoint, name)
    description = checkpoint[EXPORT_KEY]
    try:
        config, visual_input = MusicConfig.from_dict(description["model"]), description["visual_input"]
        visual_input = None if visual_input is None else VisualInputConfig.from_dict(visual_input)
        components = {kind: Component(source) for kind, source in description["components"].items()}
        return V2M(
            config, components=components, sample_rate=description["sample_rate"], license=description["license"],
            origin=description["origin"], visual_input=visual_input,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(f"{name} describes a model that cannot be ({error})") from None


def check_adapters(saved: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> None:
    """Raise UsageError where a checkpoint's adapters are not those of the model that resumes from it."""
    saved, own = saved or {}, own or {}
    labels = {"base_sha256": "the weights of the start", "rank": "lora.rank", "alpha": "lora.alpha"}
    differing = [label for name, label in labels.items() if saved.get(name) != own.get(name)]
    if differing:
        settings = ", ".join(f"{name} {saved[name]}" for name in ("init_from", "rank", "alpha") if name in saved)
        cure = f"give those ({settings or 'without lora'}), or another default_root_dir"
        raise UsageError(f"the checkpoint to resume from was trained with other {', '.join(differing)}: {cure}")


def check_sizes(checkpoint: Mapping[str, Any], model: V2M) -> None:
    """Raise UsageError where a checkpoint's weights are not those of the model that resumes from it."""
    saved = {name.removeprefix(MODEL_PREFIX): value.shape for name, value in checkpoint["state_dict"].items()}
    own = {name: value.shape for name, value in model.state_dict().items()}
    is_partial = checkpoint.get(EXPORT_KEY, {}).get("lora") is not None  # adapters are saved without their base
    unlike = [name for name, shape in saved.items() if own.get(name) != shape]
    unlike += [] if is_partial else [name for name in own if name not in saved]
    if not unlike:
        return
    before = _flatten(checkpoint.get(EXPORT_KEY, {}).get("model") or {})
    now = _flatten(model.config.to_dict())
    names = [name for name in before | now if before.get(name) != now.get(name) and name != "segment_duration"]
    settings = ", ".join(f"{name} {before.get(name)}, not {now.get(name)}" for name in names)
    cure = "give those of the checkpoint, or another `trainer.default_root_dir`"
    differences = settings or f"other weights, such as {unlike[0]}"
    raise UsageError(f"the checkpoint to resume from was trained with {differences}: {cure}")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one dict, each name with those of its owners before it."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def merge_adapters(adapters: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the state of a plain model: the adapters merged into their base model, which is loaded again.

    `adapters` are described by the checkpoint, which errors call `name`; `state` has the trained weights. Raises
    DependencyError where the base model is gone or is another, or the adapters are not valid.
    """
    try:
        init_from, sha256 = str(adapters["init_from"]), adapters["base_sha256"]
        scale = LoRAConfig(adapters["rank"], adapters["alpha"]).scale
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(f"{name} describes adapters that cannot be ({error})") from None
    base = V2M.from_pretrained(init_from, dtype=torch.float32).state_dict()
    if lora.base_sha256(base) != sha256:
        raise DependencyError(f"{init_from!r} has other weights than {name} was trained from: put those there")
    try:
        return lora.merge_state(base, state, scale)
    except KeyError as error:
        raise DependencyError(f"{name} holds adapters that {init_from!r} has no weights for ({error})") from None
