"""YuE's three models: fetched from the hub or a folder, and in memory one after the other.

What imports torch is imported where a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import WeightsInfo
from v2m.generators.yue.tokens import CODEBOOKS, PIECES, first_id
from v2m.pretrained.codecs import xcodec_files
from v2m.pretrained.weights import fetch

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

    from v2m.pretrained.codecs.xcodec import XCodec

LICENSE = "apache-2.0"
LM_FILES = ("config.json", "*.json", "*.safetensors|*.bin")
FILES = {"stage1": LM_FILES, "stage1_reference": LM_FILES, "stage2": LM_FILES, "codec": xcodec_files.FILES}
WHAT = {"stage1": "YuE's stage 1", "stage1_reference": "YuE's stage 1", "stage2": "YuE's stage 2"}
SIZES = {"stage1": 12_440_000_000, "stage1_reference": 12_440_000_000, "stage2": 3_930_000_000, "codec": 1_900_000_000}
CURE = "try --low-memory, --generator.bits 4 or a smaller --generator.section"


class Checkpoints:
    """The models by the names of their parts: stage1, stage1_reference, stage2, codec.

    Args:
        names: Of each part, a folder or a repository of the hub.
        device: Where the models run, as in `holder.choose_device`.
        bits: Of the language models' weights.
        low_memory: 4 bits unless `bits` says otherwise, where the device has kernels for them.
        keep: Whether a model stays in memory when it is done with.
    """

    def __init__(
        self, names: Mapping[str, str], *, device: str, bits: Literal[4, 8] | None, low_memory: bool, keep: bool
    ) -> None:
        self._names, self._keep = names, keep
        self._wanted, self._low_memory = device, low_memory
        self._bits: Literal[4, 8] | None = bits
        self._found: dict[str, WeightsInfo] = {}
        self._held: dict[str, LazyModel[Any]] = {}

    @cached_property
    def device(self) -> torch.device:
        """Found when it is first asked for: what this machine has, torch knows.

        Raises:
            UsageError: There is no such device.
        """
        return choose_device(self._wanted)

    @property
    def bits(self) -> Literal[4, 8] | None:
        """Bits of the language models' weights; None leaves them as they are."""
        return self._bits or (4 if self._low_memory and self.device.type in {"cuda", "cpu"} else None)

    def fetch(self, part: str, more: Sequence[str] = ()) -> WeightsInfo:
        """Where the weights of `part` lie, downloaded if need be, with the files `more` beside those of the model.

        Raises:
            MissingError: They are not here and cannot be fetched.
        """
        if part not in self._found:
            self._found[part] = fetch(
                self._names[part], (*FILES[part], *more), license=LICENSE, download_size=SIZES[part]
            )
        return self._found[part]

    def folder(self, part: str) -> Path:
        """Where the weights of `part` lie, which have been fetched."""
        return self._found[part].folder

    def model(self, part: str) -> AbstractContextManager[Any]:
        """The context in which the model of `part`, which has been fetched, is in memory.

        Raises:
            MissingError: The weights are broken or another model's.
            MemoryError: Says what to lower.
        """
        if part not in self._held:
            load = self._codec if part == "codec" else partial(self._language_model, part)
            self._held[part] = LazyModel(load, CURE)
        return self._held[part].model()

    def done_with(self, *parts: str) -> None:
        """Frees these models, or all where none is named, unless they are to stay."""
        for part in () if self._keep else parts or self._held:
            self._held[part].release()

    @property
    def loaded(self) -> dict[str, bool]:
        """Which of the models used so far are in memory."""
        return {part: holder.loaded for part, holder in self._held.items()}

    def _codec(self) -> XCodec:
        from v2m.pretrained.codecs.xcodec import XCodec

        return XCodec.load(self.folder("codec"), self.device)

    def _language_model(self, part: str) -> LlamaForCausalLM:
        from transformers import LlamaForCausalLM

        from v2m.pretrained import transformers_loader

        folder, what = self.folder(part), WHAT[part]
        model = transformers_loader.load_model(LlamaForCausalLM, folder, self.device, bits=self.bits, description=what)
        rows = model.config.vocab_size
        if rows < max(PIECES, first_id(CODEBOOKS)):
            raise DependencyError(
                f"{str(folder)!r} is not {what}: its vocabulary has {rows} tokens, not {PIECES} or more"
            )
        return model
