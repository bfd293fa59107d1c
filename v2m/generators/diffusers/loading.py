"""Loading of a diffusers pipeline from a folder, component by component.

Only classes of diffusers and transformers, only safetensors, and no weight stays random.
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

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import choose_dtype
from v2m.generators.diffusers.pipeline_info import PipelineKind
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import check_finite, read_json
from v2m.pretrained.transformers_loader import CPU

COMPONENT_MODULES = {  # libraries that model_index.json may name
    "diffusers": "diffusers",
    "transformers": "transformers",
    "ace_step": "diffusers.pipelines.ace_step",
    "stable_audio": "diffusers.pipelines.stable_audio",
    "stable_audio_3": "diffusers.pipelines.stable_audio_3",
}
COMPONENT_CLASSES = (ModelMixin, PreTrainedModel, SchedulerMixin, PreTrainedTokenizerBase)

logger = logging.getLogger(__name__)


def load_pipeline(folder: Path, kind: PipelineKind, device: torch.device, *, low_memory: bool) -> Any:
    """Load the pipeline in `folder`, ready to run on `device` in its default dtype.

    With `low_memory` each model is on the device only while it computes; on the CPU the weights are in bfloat16.
    """
    index = read_json(folder / "model_index.json")
    pipeline_class: type[Any] = getattr(diffusers, kind)
    dtype = torch.bfloat16 if low_memory and device.type == "cpu" else choose_dtype(device)
    with _quiet():
        components = {
            name: _load_component(folder, name, index.get(name), dtype, needed=parameter.default is Parameter.empty)
            for name, parameter in signature(pipeline_class.__init__).parameters.items()
            if name != "self"
        }
        pipeline = pipeline_class(**components)
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline.vae, "enable_tiling"):
        pipeline.vae.enable_tiling()  # long audio is encoded and decoded in chunks
    if low_memory and device.type != "cpu":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence diffusers' reports, and PyTorch's about the weight norm that its models are built with."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        diffusers_logging.set_verbosity(verbosity)


def _load_component(folder: Path, name: str, entry: Any, dtype: torch.dtype, *, needed: bool) -> Any:
    """Load a component of model_index.json from its subfolder; None where it is optional and absent."""
    if not isinstance(entry, list) or len(entry) != 2 or entry[0] is None:
        if needed:
            raise DependencyError(f"the model_index.json in {str(folder)!r} names no {name}: fetch it again")
        return None
    component_class = _component_class(folder, name, *entry)
    subfolder, description = folder / name, f"{name} ({component_class.__name__})"
    if issubclass(component_class, PreTrainedModel):
        model: Any = transformers_loader.load_model(component_class, subfolder, CPU, description=description)
        check_finite(model.state_dict(), f"{description} in {str(folder)!r}")
        return model.to(dtype)
    if issubclass(component_class, ModelMixin):
        return _load_diffusers_model(component_class, subfolder, description, dtype)
    return transformers_loader.load_processor(component_class, subfolder, _failure(subfolder, description))


def _component_class(folder: Path, name: str, library: Any, class_name: Any) -> type[Any]:
    module = COMPONENT_MODULES.get(library) if isinstance(library, str) else None
    component_class = getattr(importlib.import_module(module), str(class_name), None) if module else None
    if component_class is None and library == "transformers":  # before version 5 it had two classes per tokenizer
        component_class = getattr(transformers, str(class_name).removesuffix("Fast"), None)
    if not isinstance(component_class, type) or not issubclass(component_class, COMPONENT_CLASSES):
        raise DependencyError(
            f"the model_index.json in {str(folder)!r} names {library}.{class_name} as {name}, which is no component "
            "that diffusers or transformers has: nothing of it was run"
        )
    return component_class


def _load_diffusers_model(model_class: Any, subfolder: Path, description: str, dtype: torch.dtype) -> Any:
    with transformers_loader.explained_errors(_failure(subfolder, description)):
        model, info = model_class.from_pretrained(
            subfolder, local_files_only=True, use_safetensors=True, output_loading_info=True, torch_dtype=dtype
        )
    transformers_loader.check_loading_info(info, subfolder, description)
    check_finite(model.state_dict(), f"{description} in {str(subfolder.parent)!r}")
    return model.eval().requires_grad_(False)


def _failure(subfolder: Path, description: str) -> str:
    return f"{str(subfolder)!r} cannot be loaded as {description}"
