"""Loading of models in transformers' format; no weight stays random, errors take one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from v2m.core.compat import supports_sdpa
from v2m.core.errors import DependencyError, error_text, is_out_of_memory
from v2m.core.lazy_model import choose_dtype, quantization_config
from v2m.pretrained.safe_load import read_json, read_state_dict

logger = getLogger(__name__)

CPU = torch.device("cpu")
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"
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
    """Load the model in `folder` onto `device`, ready to run: SDPA attention, no gradients.

    Weights keep the checkpoint's dtype on the CPU, where memory decides, and take the device's elsewhere. `bits`
    quantizes them while they are loaded (UsageError where the device has no kernels for it), but for the modules
    `skip_quantization`; empty leaves the choice to transformers. `description` is the model's name in errors.
    """
    config = read_json(folder / "config.json") if config is None else config
    model_type, expected = config.get("model_type"), getattr(model_class.config_class, "model_type", None)
    if model_type != expected:
        raise DependencyError(
            f"{str(folder)!r} is no {description}: its config.json says model_type {model_type!r}, not {expected!r}; "
            "give another checkpoint"
        )
    quantization = quantization_config(bits, device)
    if quantization is not None and skip_quantization:
        quantization.llm_int8_skip_modules = list(skip_quantization)  # despite its name for 4 bits too
    state = read_state_dict(folder) if state is None else state
    dtype = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    with _quiet(), explained_errors(f"{str(folder)!r} cannot be loaded as {description}"):
        model, info = cast(Any, model_class).from_pretrained(
            None,
            config=cast(Any, model_class.config_class).from_dict(dict(config)),
            state_dict=dict(state),
            dtype=dtype if device.type == "cpu" else choose_dtype(device),
            attn_implementation="sdpa" if supports_sdpa(model_class) else None,  # codecs have none
            quantization_config=quantization,
            device_map={"": device} if bits else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
        )
    check_loading_info(info, folder, description)
    _warn_of_untied_head(model, state, folder)
    if not bits:  # quantized weights are placed while they are loaded
        model.to(device)
    return model.eval().requires_grad_(False)


def load_tokenizer(tokenizer_class: Any, folder: Path, files: Sequence[str], description: str) -> Any:
    """Load the tokenizer of `description` from `folder`, which must hold one of `files`."""
    if not any((folder / name).is_file() for name in files):
        message = (
            f"{str(folder)!r} holds no tokenizer of {description}: neither {' nor '.join(files)}; fetch one of them"
        )
        raise DependencyError(message)
    return load_processor(tokenizer_class, folder, f"the tokenizer in {str(folder)!r} cannot be read")


def load_processor(processor_class: Any, folder: Path, failure: str) -> Any:
    """Load what has no weights from a folder, or raise DependencyError, which begins with `failure`."""
    with explained_errors(failure):
        return processor_class.from_pretrained(folder, local_files_only=True)


@contextmanager
def explained_errors(failure: str) -> Iterator[None]:
    """Raise DependencyError, which begins with `failure`, for errors of any kind: the files decide which."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise DependencyError(f"{failure} ({error_text(error, 300)}): fetch it again") from error


def check_loading_info(info: Mapping[str, Any], folder: Path, description: str) -> None:
    """Raise DependencyError where weights stayed random or were left over, by transformers' loading info."""
    kinds = ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs")
    problems = [f"{len(info[kind])} {kind.replace('_', ' ')}" for kind in kinds if info.get(kind)]
    if problems:
        first = min(_key_name(key) for key in next(info[kind] for kind in kinds if info.get(kind)))
        raise DependencyError(
            f"{str(folder)!r} does not fit {description}: {', '.join(problems)}, such as {first}; "
            "fetch it again, or give another checkpoint"
        )


def _warn_of_untied_head(model: PreTrainedModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Warn where config.json ties the output layer to the embedding, but the file's differs."""
    head, embedding = state.get(HEAD), next((state[name] for name in state if name.endswith(EMBEDDING)), None)
    if head is None or embedding is None or not model.config.get_text_config().tie_word_embeddings:
        return
    if not torch.equal(head, embedding):
        logger.warning(
            "%s: config.json says tie_word_embeddings, but %s differs: that of the file is used", folder, HEAD
        )


def _key_name(key: Any) -> str:
    return key if isinstance(key, str) else f"{key[0]} {tuple(key[1])} instead of {tuple(key[2])}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and report, which would interleave with the bars of this program."""
    bar_enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar_enabled:
            logging.enable_progress_bar()
