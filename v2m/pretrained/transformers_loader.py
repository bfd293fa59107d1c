"""Models in transformers' own format, loaded so that a wrong folder gives one line and nothing stays random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from v2m.core.errors import DependencyError, is_out_of_memory
from v2m.core.lazy_model import choose_dtype, quantization_config
from v2m.pretrained.safe_load import read_json, read_state_dict

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def load_model(
    model_class: type[ModelT],
    folder: Path,
    device: torch.device,
    *,
    bits: Literal[4, 8] | None = None,
    description: str,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    skip_quantization: Sequence[str] = (),
) -> ModelT:
    """The model in `folder` on `device`, ready to run: attention by PyTorch's own kernels, no gradients.

    Weights keep the checkpoint's type on the CPU, where it decides what fits, and take the device's elsewhere.

    Args:
        kind: The model's class.
        folder: Holds config.json and weights (see `files.state_dict`).
        device: Where it is to run.
        bits: Makes the weights smaller, while they are loaded.
        what: Names the model in errors.
        config: Takes the place of config.json, where that is not in transformers' layout.
        state: Takes the place of the folder's weights, likewise.
        whole: Modules that `bits` leaves as they are; none leaves that to transformers.

    Raises:
        MissingError: The folder holds another kind of model, or files are missing, broken or do not fit; says which.
        UsageError: The device has no kernels for `bits`.
    """
    config = read_json(folder / "config.json") if config is None else config
    found, wanted = config.get("model_type"), getattr(model_class.config_class, "model_type", None)
    if found != wanted:
        raise DependencyError(
            f"{str(folder)!r} is no {description}: its config.json says model_type {found!r}, not {wanted!r}"
        )
    quantized = quantization_config(bits, device)
    if quantized is not None and skip_quantization:
        quantized.llm_int8_skip_modules = list(skip_quantization)  # of 4 bits too
    state = read_state_dict(folder) if state is None else state
    stored = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    try:
        with _quiet():
            made: Any = model_class.from_pretrained(
                None,
                config=cast(Any, model_class.config_class).from_dict(dict(config)),
                state_dict=dict(state),
                dtype=stored if device.type == "cpu" else choose_dtype(device),
                attn_implementation="sdpa" if model_class._supports_sdpa else None,  # of which a codec has none
                quantization_config=quantized,
                device_map={"": device} if bits else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, by name
            )
    except Exception as error:  # of any kind: the files decide which
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
        raise DependencyError(f"{str(folder)!r} cannot be loaded as {description} ({said}): fetch it again") from error
    model, told = made
    _check_loading_info(told, folder, description)
    if not bits:  # which are placed while they are loaded
        model.to(device)
    return model.eval().requires_grad_(False)


def load_tokenizer(tokenizer_class: Any, folder: Path, files: Sequence[str], description: str) -> Any:
    """The tokenizer of `what` in `folder`, of transformers' class `kind`, which can read any one of `files`.

    Raises:
        MissingError: None of them is there, or what is cannot be read.
    """
    if not any((folder / name).is_file() for name in files):
        raise DependencyError(f"{str(folder)!r} holds no tokenizer of {description}: neither {' nor '.join(files)}")
    return load_processor(tokenizer_class, folder, f"the tokenizer in {str(folder)!r} cannot be read")


def load_processor(processor_class: Any, folder: Path, failure: str) -> Any:
    """What transformers' class `kind` makes of a folder that holds no weights for it. Raises MissingError: `what`, and
    why."""
    try:
        return processor_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of any kind: the files decide which
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        raise DependencyError(f"{failure} ({said}): fetch it again") from error


def _check_loading_info(info: Mapping[str, Any], folder: Path, description: str) -> None:
    """Raises MissingError where something stayed random or was left over, as transformers tells."""
    kinds = ("missing_keys", "mismatched_keys", "unexpected_keys")
    lacking = [f"{len(info[each])} {each.replace('_', ' ')}" for each in kinds if info[each]]
    if lacking:
        first = min(_key_name(key) for key in next(info[each] for each in kinds if info[each]))
        raise DependencyError(f"{str(folder)!r} does not fit {description}: {', '.join(lacking)}, such as {first}")


def _key_name(key: Any) -> str:
    """Of a parameter, or of (parameter, shape in the file, shape in the model)."""
    return key if isinstance(key, str) else f"{key[0]} {tuple(key[1])} instead of {tuple(key[2])}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its report, which know nothing of what is shown here."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
