"""A folder of diffusers' layout → the pipeline, component by component.

Only classes of diffusers and transformers, only safetensors, and nothing left random.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging as diffusers_logging
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from v2m.core.errors import DependencyError, is_out_of_memory
from v2m.core.lazy_model import choose_dtype
from v2m.generators.diffusers.pipeline_info import PipelineKind
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import check_finite, read_json

COMPONENT_MODULES = {  # whose classes a folder may name
    "diffusers": "diffusers",
    "transformers": "transformers",
    "ace_step": "diffusers.pipelines.ace_step",
    "stable_audio": "diffusers.pipelines.stable_audio",
    "stable_audio_3": "diffusers.pipelines.stable_audio_3",
}
COMPONENT_CLASSES = (ModelMixin, PreTrainedModel, SchedulerMixin, PreTrainedTokenizerBase)
CPU = torch.device("cpu")

logger = logging.getLogger(__name__)


def load_pipeline(folder: Path, kind: PipelineKind, device: torch.device, *, low_memory: bool) -> Any:
    """The pipeline in `folder`, ready to run on `device` in the type that suits it.

    With `low_memory` each model is on the device only while it works; on the CPU the weights are held in bfloat16.

    Raises:
        DependencyError: Files are missing, broken, do not fit, or name what is no component of a pipeline.
    """
    index = read_json(folder / "model_index.json")
    made: type[Any] = getattr(diffusers, kind)
    dtype = torch.bfloat16 if low_memory and device.type == "cpu" else choose_dtype(device)
    with _quiet():
        parts = {
            name: _load_component(folder, name, index.get(name), dtype, needed=parameter.default is Parameter.empty)
            for name, parameter in signature(made.__init__).parameters.items()
            if name != "self"
        }
        pipeline = made(**parts)
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline.vae, "enable_tiling"):
        pipeline.vae.enable_tiling()  # long sound is encoded and decoded in pieces
    if low_memory and device.type != "cpu":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' reports, and PyTorch's on the weight norm that its models are built with."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        diffusers_logging.set_verbosity(verbosity)


def _load_component(folder: Path, name: str, named: Any, dtype: torch.dtype, *, needed: bool) -> Any:
    """The component that model_index.json calls `name`, from its subfolder; None where it is not needed and absent."""
    if not isinstance(named, list) or len(named) != 2 or named[0] is None:
        if needed:
            raise DependencyError(f"the model_index.json in {str(folder)!r} names no {name}: fetch it again")
        return None
    kind = _component_class(folder, name, *named)
    here, what = folder / name, f"{name} ({kind.__name__})"
    if issubclass(kind, PreTrainedModel):
        model: Any = transformers_loader.load_model(kind, here, CPU, description=what)
        check_finite(model.state_dict(), f"{what} in {str(folder)!r}")
        return model.to(dtype)
    try:
        if issubclass(kind, ModelMixin):
            return _load_model(kind, here, what, dtype)
        return kind.from_pretrained(here, local_files_only=True)
    except DependencyError:
        raise
    except Exception as error:  # of any kind: the files decide which
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        raise DependencyError(f"{str(here)!r} cannot be loaded as {what} ({said}): fetch it again") from error


def _component_class(folder: Path, name: str, library: Any, called: Any) -> type[Any]:
    home = COMPONENT_MODULES.get(library) if isinstance(library, str) else None
    kind = getattr(importlib.import_module(home), str(called), None) if home else None
    if kind is None and library == "transformers":  # which had two of each tokenizer before its version 5
        kind = getattr(transformers, str(called).removesuffix("Fast"), None)
    if not isinstance(kind, type) or not issubclass(kind, COMPONENT_CLASSES):
        raise DependencyError(
            f"the model_index.json in {str(folder)!r} names {library}.{called} as {name}, which is no component that "
            "diffusers or transformers has: nothing of it was run"
        )
    return kind


def _load_model(kind: Any, here: Path, what: str, dtype: torch.dtype) -> Any:
    made, told = kind.from_pretrained(
        here, local_files_only=True, use_safetensors=True, output_loading_info=True, torch_dtype=dtype
    )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    lacking = [f"{len(told[each])} {each.replace('_', ' ')}" for each in kinds if told.get(each)]
    if lacking:
        first = next(str(told[each][0]) for each in kinds if told.get(each))
        raise DependencyError(f"{str(here)!r} does not fit {what}: {', '.join(lacking)}, such as {first}")
    check_finite(made.state_dict(), f"{what} in {str(here.parent)!r}")
    return made.eval().requires_grad_(False)
