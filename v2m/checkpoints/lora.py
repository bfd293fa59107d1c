"""Adapters in a training checkpoint: without what they adapt, which is named and known by its hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v2m.checkpoints.model import V2M
from v2m.core.errors import DependencyError, UsageError
from v2m.models import lora
from v2m.models.lora import LoRAConfig


def check_adapters(held: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> None:
    """Raises UsageError where a checkpoint's adapters are not those of the model that is to go on from it.

    Args:
        held: What the checkpoint says of its adapters; None of a model that learned whole.
        own: What the model's own checkpoint would say.
    """
    held, own = held or {}, own or {}
    told = {"base_sha256": "the weights of the start", "rank": "lora.rank", "alpha": "lora.alpha"}
    differing = [said for name, said in told.items() if held.get(name) != own.get(name)]
    if differing:
        about = ", ".join(f"{name} {held[name]}" for name in ("init_from", "rank", "alpha") if name in held)
        raise UsageError(
            f"the checkpoint to go on from was trained with other {', '.join(differing)}: give those "
            f"({about or 'without lora'}), or another --trainer.default_root_dir"
        )


def merge_adapters(about: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The state of a plain model: with adapters put into what they were trained beside, which is read anew.

    Args:
        about: What the checkpoint says of its adapters.
        state: What has learned.
        name: That of the checkpoint in errors.

    Raises:
        DependencyError: What was adapted is not there any more, or is another; or the adapters cannot be.
    """
    try:
        start, base, scale = (
            str(about["init_from"]),
            about["base_sha256"],
            LoRAConfig(about["rank"], about["alpha"]).scale,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(f"{name} describes adapters that cannot be ({error})") from None
    whole = V2M.from_pretrained(start, dtype=torch.float32).state_dict()
    if lora.base_sha256(whole) != base:
        raise DependencyError(f"{start!r} has other weights than {name} was trained from: put those there")
    try:
        return lora.merge_state(whole, state, scale)
    except KeyError as error:
        raise DependencyError(f"{name} holds adapters that {start!r} has no weights for ({error})") from None
