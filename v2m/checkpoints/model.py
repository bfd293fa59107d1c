"""`V2M`, the pretrained music model: what learns, its frozen components, and its provenance."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from v2m.checkpoints import load, save
from v2m.checkpoints.components import (
    PREPROCESSOR_CONFIG,
    REQUIRED_FILES,
    TOKENIZER_FILES,
    Component,
    VisualInputConfig,
)
from v2m.core.atomic import atomic_directory
from v2m.core.errors import DependencyError
from v2m.core.lazy_model import choose_dtype
from v2m.core.types import CodecSpec, WeightsInfo
from v2m.models.music_model import MusicConfig, MusicModel
from v2m.pretrained import safe_load, weights


class V2M(MusicModel):
    """A music model with its frozen components and provenance.

    Args:
        config: Sizes of the model.
        components: Frozen models that go with it: "text_encoder", "codec", "vision_encoder", "style_encoder".
        weights: Checkpoints that it was loaded from, for the sidecar.
        sample_rate: Hz.
        license: License of the weights, as their authors name it.
        origin: Name of what they were made from, with the revision where it is known.
        visual_input: How videos become inputs of its visual conditioner, if it has one.
    """

    def __init__(
        self,
        config: MusicConfig,
        *,
        components: Mapping[str, Component] | None = None,
        weights: tuple[WeightsInfo, ...] = (),
        sample_rate: int = 32000,
        license: str | None = None,
        origin: str | None = None,
        visual_input: VisualInputConfig | None = None,
    ) -> None:
        super().__init__(config)
        self.components = dict(components or {})
        self.weights = weights
        self.sample_rate, self.license, self.origin = sample_rate, license, origin
        self.visual_input = visual_input

    @property
    def provenance(self) -> dict[str, Any]:
        """Sample rate, license and origin, as checkpoints and their cards state them."""
        return {"sample_rate": self.sample_rate, "license": self.license, "origin": self.origin}

    @classmethod
    def from_pretrained(cls, name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> V2M:
        """Load a checkpoint of v2m, of transformers' MusicGen, of audiocraft or of VidMuse.

        `name` is its folder, or its repository on the hub. A `dtype` of None keeps the checkpoint's on the CPU, except
        float16, with which few CPUs compute, and takes the device's elsewhere. Raises DependencyError where it is
        missing, broken, of another kind, or has values that are not finite.
        """
        info = load.fetch(name)
        source = load.load_checkpoint(info)
        safe_load.check_finite(source.state, f"{name!r}")
        with torch.device("meta"):
            model = cls(
                source.config, components=source.components, weights=(replace(info, license=source.license),),
                sample_rate=source.sample_rate, license=source.license, origin=source.origin,
                visual_input=source.visual_input,
            )  # fmt: skip
        safe_load.load_strict(model, source.state, f"the music model that {name!r} describes", assign=True)
        target = torch.device(device)
        stored = next(iter(model.parameters())).dtype
        default = torch.float32 if stored == torch.float16 else stored
        return model.to(target, dtype or (default if target.type == "cpu" else choose_dtype(target))).eval()

    def component(self, kind: str) -> Component:
        """Return a frozen model, fetched if it is only named. Raises DependencyError where there is none."""
        component = self.components.get(kind)
        if component is None:
            raise DependencyError(f"{self.origin or 'this model'} names no {kind.replace('_', ' ')}")
        if component.name is not None and component.folder is None and not component.is_built_in:
            info = weights.fetch(component.name, REQUIRED_FILES[kind])
            component = self.components[kind] = replace(component, folder=info.folder)
            self.weights = (*self.weights, info)
        return component

    def check_codec(self, spec: CodecSpec) -> None:
        """Raise DependencyError where the codec's codes are not those that the model generates.

        For a stereo model `spec` is that of the codec for both sides, with twice the codebooks.
        """
        lm = self.config.lm
        values = {
            "codebooks": (spec.num_codebooks, lm.num_codebooks),
            "entries a codebook": (spec.codebook_size, lm.codebook_size),
            "Hz": (spec.sample_rate, self.sample_rate),
        }
        differing = [f"{has} {unit} instead of {needed}" for unit, (has, needed) in values.items() if has != needed]
        if differing:
            problem = f"the codec does not fit the music model {self.origin or ''}: it has {', '.join(differing)}"
            raise DependencyError(f"{problem}; use the codec that the model was trained with")

    def save_pretrained(self, folder: Path) -> None:
        """Save a v2m checkpoint atomically; loaded again, it gives the same music bit for bit.

        Components that the source stored go along; the others stay names. A v2m checkpoint in the folder is replaced;
        anything else there raises UsageError.
        """
        atomic_directory(Path(folder), self._write_files, may_replace=save.is_v2m_checkpoint)

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload what `save_pretrained` writes, in one commit; return its address.

        `repository` is "owner/name", created, `private` or not, if it does not exist. Raises DependencyError where the
        hub cannot be reached or refuses it.
        """
        from v2m.pretrained import hub

        with tempfile.TemporaryDirectory(prefix="v2m-") as parent:
            folder = Path(parent) / "checkpoint"
            self.save_pretrained(folder)
            return hub.upload(folder, repository, private=private)

    def _write_files(self, folder: Path) -> None:
        names = {kind: component.name or kind for kind, component in self.components.items()}
        settings = {"model": self.config.to_dict(), **{kind: names.get(kind) for kind in REQUIRED_FILES}}
        visual_input = {} if self.visual_input is None else {"visual_input": self.visual_input.to_dict()}
        save.write_config(folder, {**settings, **self.provenance, **visual_input})
        save.write_weights(folder / save.WEIGHTS_FILE, self.state_dict(), v2m_format=str(save.FORMAT_VERSION))
        for kind, component in self.components.items():
            if component.name is None:
                files = TOKENIZER_FILES if kind == "text_encoder" else (PREPROCESSOR_CONFIG,)
                save.write_component(folder / kind, component, files)
        count = sum(value.numel() for value in self.parameters())
        text = save.render_model_card(self.config, count, self.components, **self.provenance)
        (folder / save.CARD_FILE).write_text(text, encoding="utf-8")
