"""YuE's models: fetched from the hub or a folder, in memory one after the other.

Modules that import torch are imported where a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import WeightsInfo
from v2m.generators.yue.tokenizer import VOCAB_SIZE
from v2m.pretrained.weights import fetch

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

    from v2m.pretrained.codecs.xcodec import XCodec

LICENSE = "apache-2.0"
CODEC_FILES = (  # as X-Codec and its vocoders read them
    *("final_ckpt/config.yaml", "final_ckpt/ckpt_00360000.pth", "semantic_ckpts/hf_1_325000/config.json"),
    *("decoders/config.yaml", "decoders/decoder_131000.pth", "decoders/decoder_151000.pth"),
)
LM_FILES = ("config.json", "*.json", "*.safetensors|*.bin")


class _Component(NamedTuple):
    description: str
    files: Sequence[str]
    download_size: int  # bytes


COMPONENTS = {
    "stage1": _Component("YuE's stage 1", LM_FILES, 12_440_000_000),
    "stage1_reference": _Component("YuE's stage 1", LM_FILES, 12_440_000_000),
    "stage2": _Component("YuE's stage 2", LM_FILES, 3_930_000_000),
    "codec": _Component("X-Codec", CODEC_FILES, 1_900_000_000),
}
OOM_HINT = "try `low_memory=True`, `generator.bits=4` or a smaller `generator.max_section`"


class YuEComponents:
    """The models by component: stage1, stage1_reference, stage2, codec; options as of `YuE`."""

    def __init__(
        self, names: Mapping[str, str], *, device: str, bits: Literal[4, 8] | None, low_memory: bool, keep_loaded: bool
    ) -> None:
        self._names, self._keep_loaded = names, keep_loaded
        self._device_name, self._low_memory = device, low_memory
        self._bits: Literal[4, 8] | None = bits
        self._weights: dict[str, WeightsInfo] = {}
        self._models: dict[str, LazyModel[Any]] = {}

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self._device_name)

    @property
    def bits(self) -> Literal[4, 8] | None:
        """Bits of the language models' weights; None leaves them unquantized."""
        return self._bits or (4 if self._low_memory and self.device.type in {"cuda", "cpu"} else None)

    def name(self, component: str) -> str:
        """Return the folder or repository that was chosen for `component`."""
        return self._names[component]

    def fetch(self, component: str, extra_files: Sequence[str] = ()) -> WeightsInfo:
        if component not in self._weights:
            files, size = COMPONENTS[component].files, COMPONENTS[component].download_size
            self._weights[component] = fetch(
                self._names[component], (*files, *extra_files), license=LICENSE, download_size=size
            )
        return self._weights[component]

    def folder(self, component: str) -> Path:
        """Folder of the weights of `component`, already fetched."""
        return self._weights[component].folder

    def model(self, component: str) -> AbstractContextManager[Any]:
        """Context in which the model of `component`, already fetched, is in memory."""
        if component not in self._models:
            load = self._load_codec if component == "codec" else partial(self._load_language_model, component)
            self._models[component] = LazyModel(load, OOM_HINT)
        return self._models[component].model()

    def release(self, *components: str) -> None:
        """Free these models, or all where none is named, unless `keep_loaded` is set."""
        for component in () if self._keep_loaded else components or self._models:
            self._models[component].release()

    def _load_codec(self) -> XCodec:
        from v2m.pretrained.codecs.xcodec import XCodec

        return XCodec.load(self.folder("codec"), self.device)

    def _load_language_model(self, component: str) -> LlamaForCausalLM:
        from transformers import LlamaForCausalLM

        from v2m.generators.yue.decoder import quantize_layers
        from v2m.pretrained import transformers_loader

        folder, name = self.folder(component), COMPONENTS[component].description
        bits = None if self.device.type == "cpu" else self.bits  # on a CPU our kernels take less time and no package
        model = transformers_loader.load_model(LlamaForCausalLM, folder, self.device, bits=bits, description=name)
        if self.bits is not None and bits is None:
            quantize_layers(model, "int4" if self.bits == 4 else "int8")
        size = model.config.vocab_size
        if size < VOCAB_SIZE:
            message = f"{str(folder)!r} is not {name}: its vocabulary has {size} tokens, not {VOCAB_SIZE} or more"
            raise DependencyError(message)
        return model
