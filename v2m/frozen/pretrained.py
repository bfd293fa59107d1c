"""Models in transformers' own format, loaded so that a wrong folder gives one line and nothing stays random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging

from v2m.errors import MissingError, out_of_memory
from v2m.frozen.files import read_json
from v2m.frozen.holder import choose_dtype, quantisation

Model = TypeVar("Model", bound=PreTrainedModel)


def load(
    kind: type[Model], folder: Path, device: torch.device, *, bits: Literal[4, 8] | None = None, what: str
) -> Model:
    """The model in `folder` on `device`, ready to run: attention by PyTorch's own kernels, no gradients.

    Weights keep the checkpoint's type on the CPU, where it decides what fits, and take the device's elsewhere; `bits`
    makes them smaller. `what` names the model in errors.

    Raises:
        MissingError: The folder holds another kind of model, or files are missing, broken or do not fit; says which.
        UsageError: The device has no kernels for `bits`.
    """
    found = read_json(folder / "config.json").get("model_type")
    wanted = getattr(kind.config_class, "model_type", None)
    if found != wanted:
        raise MissingError(f"{str(folder)!r} is no {what}: its config.json says model_type {found!r}, not {wanted!r}")
    settings: dict[str, Any] = {
        "dtype": "auto" if device.type == "cpu" else choose_dtype(device),
        "attn_implementation": "sdpa",
        "quantization_config": quantisation(bits, device),
        "device_map": {"": device} if bits else None,
        "local_files_only": True,
        "output_loading_info": True,
    }
    try:
        with _quiet():
            model, told = cast(tuple[Model, dict[str, Any]], kind.from_pretrained(folder, **settings))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
        raise MissingError(f"{str(folder)!r} cannot be loaded as {what} ({said}): fetch it again") from error
    kinds = ("missing_keys", "mismatched_keys", "unexpected_keys")
    lacking = [f"{len(told[each])} {each.replace('_', ' ')}" for each in kinds if told[each]]
    if lacking:
        first = next(str(name) for each in kinds for name in sorted(map(str, told[each])))
        raise MissingError(f"{str(folder)!r} does not fit {what}: {', '.join(lacking)}, such as {first}")
    if not bits:  # which are placed while they are loaded
        torch.nn.Module.to(model, device)
    return model.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bar, which knows nothing of the one that is shown."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
