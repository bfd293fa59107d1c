"""`V2M`: everything that learns, with the frozen models that go with it and where all of it came from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from v2m.checkpoints import load, save
from v2m.checkpoints.components import PREPROCESSOR_CONFIG, REQUIRED_FILES, TOKENIZER_FILES, Component
from v2m.checkpoints.model_card import render_card
from v2m.checkpoints.visual_input_config import VisualInputConfig
from v2m.core.errors import DependencyError
from v2m.core.lazy_model import choose_dtype
from v2m.core.types import CodecSpec, WeightsInfo
from v2m.models.music_model import MusicConfig, MusicModel
from v2m.pretrained import safe_load, weights


class V2M(MusicModel):
    """A music model that knows its checkpoint.

    Args:
        config: Sizes of the model.
        parts: The frozen models that go with it: "text_encoder", "codec", "vision_encoder".
        weights: What the model was read from, for the sidecar.
        sample_rate: Of the music, in Hz.
        license: Of the weights, as their authors name it.
        origin: What they were made from: a name, with the revision where it is known.
        shown: How videos are shown to it, if it sees.
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

    @classmethod
    def from_pretrained(cls, name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> V2M:
        """Reads a checkpoint of our own, of transformers' MusicGen, of audiocraft or of VidMuse.

        Args:
            name: Its folder, or its repository on the hub (see `v2m.pretrained.weights.fetch`).
            device: Where it is to be.
            dtype: Of the weights; None keeps the checkpoint's on the CPU, but for float16, with which few CPUs compute,
                and takes the device's elsewhere.

        Raises:
            DependencyError: The checkpoint is not there, broken, of another kind, or holds values that are no numbers.
        """
        found = load.fetch(name)
        source = load.load_checkpoint(found)
        safe_load.check_finite(source.state, f"{name!r}")
        with torch.device("meta"):
            model = cls(
                source.config,
                components=source.components,
                weights=(replace(found, license=source.license),),
                sample_rate=source.sample_rate,
                license=source.license,
                origin=source.origin,
                visual_input=source.visual_input,
            )
        safe_load.load_strict(model, source.state, f"the music model that {name!r} describes", assign=True)
        place = torch.device(device)
        stored = next(iter(model.parameters())).dtype
        own = torch.float32 if stored == torch.float16 else stored
        return model.to(place, dtype or (own if place.type == "cpu" else choose_dtype(place))).eval()

    def component(self, kind: str) -> Component:
        """A frozen model with its files on this machine; the first call fetches one that is only named.

        Raises:
            DependencyError: No such part goes with the model, or it cannot be fetched.
        """
        part = self.components.get(kind)
        if part is None:
            raise DependencyError(f"{self.origin or 'this model'} names no {kind.replace('_', ' ')}")
        if part.name is not None and part.folder is None:
            found = weights.fetch(part.name, REQUIRED_FILES[kind])
            part = self.components[kind] = replace(part, folder=found.folder)
            self.weights = (*self.weights, found)
        return part

    def check_codec(self, spec: CodecSpec) -> None:
        """Raises DependencyError where the codec's codes are not those that the model writes.

        Of stereo models `spec` is that of the codec for both sides, with twice the codebooks.
        """
        lm = self.config.lm
        wanted = {"codebooks": lm.num_codebooks, "entries a codebook": lm.codebook_size, "Hz": self.sample_rate}
        has = {"codebooks": spec.num_codebooks, "entries a codebook": spec.codebook_size, "Hz": spec.sample_rate}
        differing = [f"{has[what]} {what} instead of {wanted[what]}" for what in wanted if has[what] != wanted[what]]
        if differing:
            raise DependencyError(
                f"the codec does not fit the music model {self.origin or ''}: it has {', '.join(differing)}; "
                "use the codec that the model was trained with"
            )

    def save_pretrained(self, folder: Path) -> None:
        """Writes a checkpoint of our own, whole or not at all: what is read back gives the same music bit for bit.

        Parts that the source carried go along; the others stay names.

        Args:
            folder: New, empty, or a checkpoint of our own, which is replaced.

        Raises:
            UsageError: Something else is in the folder.
        """
        save.atomic_directory(Path(folder), self._write_files, replace=True)

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Uploads what `save_pretrained` writes, in one commit; returns its address.

        Args:
            repository: "owner/name", which is made if it is not there.
            private: Whether a new one is.

        Raises:
            DependencyError: The hub cannot be reached or does not allow it; says why.
        """
        from v2m.pretrained import hub

        with tempfile.TemporaryDirectory(prefix="v2m-") as parent:
            folder = Path(parent) / "checkpoint"
            self.save_pretrained(folder)
            return hub.upload(folder, repository, private=private)

    def _write_files(self, folder: Path) -> None:
        named = {kind: kind if part.name is None else part.name for kind, part in self.components.items()}
        settings = {"model": self.config.to_dict(), **{kind: named.get(kind) for kind in REQUIRED_FILES}}
        about = {"sample_rate": self.sample_rate, "license": self.license, "origin": self.origin}
        shown = {} if self.visual_input is None else {"visual_input": self.visual_input.to_dict()}
        save.write_config(folder, {**settings, **about, **shown})
        save.write_weights(folder / save.WEIGHTS_FILE, self.state_dict(), v2m_format=str(save.FORMAT_VERSION))
        for kind, part in self.components.items():
            if part.name is None:
                names = TOKENIZER_FILES if kind == "text_encoder" else (PREPROCESSOR_CONFIG,)
                save.write_component(folder / kind, part, names)
        count = sum(value.numel() for value in self.parameters())
        text = render_card(self.config, count, self.components, **about)
        (folder / save.CARD_FILE).write_text(text, encoding="utf-8")
