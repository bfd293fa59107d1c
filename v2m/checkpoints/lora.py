"""LoRA adapters in a training checkpoint, which names their base model and its hash instead of storing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v2m.checkpoints.model import V2M
from v2m.core.errors import DependencyError, UsageError
from v2m.models import lora
from v2m.models.lora import LoRAConfig


def check_adapters(saved: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> None:
    """Raise UsageError where a checkpoint's adapters are not those of the model that resumes from it.

    Args:
        saved: The checkpoint's description of its adapters; None of a model without.
        own: The description that the model would save.
    """
    saved, own = saved or {}, own or {}
    labels = {"base_sha256": "the weights of the start", "rank": "lora.rank", "alpha": "lora.alpha"}
    differing = [label for name, label in labels.items() if saved.get(name) != own.get(name)]
    if differing:
        about = ", ".join(f"{name} {saved[name]}" for name in ("init_from", "rank", "alpha") if name in saved)
        raise UsageError(
            f"the checkpoint to go on from was trained with other {', '.join(differing)}: give those "
            f"({about or 'without lora'}), or another --trainer.default_root_dir"
        )


def merge_adapters(about: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the state of a plain model: the adapters merged into their base model, which is loaded again.

    Args:
        about: The checkpoint's description of its adapters.
        state: The trained weights.
        name: Of the checkpoint, in errors.

    Raises:
        DependencyError: The base model is gone or is another, or the adapters are not valid.
    """
    try:
        init_from, sha256, scale = (
            str(about["init_from"]),
            about["base_sha256"],
            LoRAConfig(about["rank"], about["alpha"]).scale,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(f"{name} describes adapters that cannot be ({error})") from None
    base = V2M.from_pretrained(init_from, dtype=torch.float32).state_dict()
    if lora.base_sha256(base) != sha256:
        raise DependencyError(f"{init_from!r} has other weights than {name} was trained from: put those there")
    try:
        return lora.merge_state(base, state, scale)
    except KeyError as error:
        raise DependencyError(f"{name} holds adapters that {init_from!r} has no weights for ({error})") from None
