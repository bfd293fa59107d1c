"""SONIQUE generator: user options and early validation; inference is in `engine`.

Zhang and Fuentes, "SONIQUE: Video Background Music Generation Using Unpaired Audio-Visual Data" (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.base import ModelGenerator
from v2m.generators.inpaint import InpaintSource, inpaint_metadata
from v2m.generators.options import DiffusionPrecision, DiffusionSampling
from v2m.media import audio as sound_files

OOM_HINT = "try `low_memory=True`, a smaller `generator.batch_size` or `generator.precision=bf16`"


class Sonique(ModelGenerator):
    """SONIQUE, or a model in its layout: instrumental, with a prompt and a negative prompt from the tags.

    Args:
        model: A folder in the layout of SONIQUE's repository, looked for in `checkpoints/` too.
        tokenizer: RoBERTa's, a folder or a repository of the hub, where `model` holds none.
        device: auto, cuda, cuda:1, mps or cpu.
        precision: Of the U-Net; None is the device's default, bf16 where it multiplies that in hardware. fp32 is exact;
            int8, 8-bit linear layers within bf16, is for CPUs.
        low_memory: Keep each component on the device only while it computes, with a batch size of 1.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
        sampling: Sampler options.
        overlap: Seconds of known music that a window includes on either side; a third of a window at most.
        melody_strength: Closeness to the melody, 0 to 1: the less noise is added to it.
        batch_size: Candidates per batch.
    """

    capabilities = frozenset({"melody", "inpaint"})

    def __init__(
        self,
        *,
        model: str = "sonique",
        tokenizer: str = "FacebookAI/roberta-base",
        device: str = "auto",
        precision: DiffusionPrecision | None = None,
        low_memory: bool = False,
        keep_loaded: bool = False,
        sampling: DiffusionSampling | None = None,
        overlap: float = 6.0,
        melody_strength: float = 0.4,
        batch_size: int = 4,
    ) -> None:
        super().__init__(device, keep_loaded=keep_loaded, oom_hint=OOM_HINT)
        problems = [] if overlap >= 0.1 else [f"overlap {overlap:g} s must be 0.1 or more"]
        problems += [] if 0 <= melody_strength <= 1 else [f"melody_strength {melody_strength:g} must be 0 to 1"]
        problems += [] if batch_size >= 1 else [f"batch_size {batch_size} must be 1 or more"]
        if problems:
            raise UsageError("; ".join(problems))
        self.sampling = sampling or DiffusionSampling()
        self.model, self.tokenizer, self.overlap, self.melody_strength = model, tokenizer, overlap, melody_strength
        self.precision: DiffusionPrecision | None = precision
        self.low_memory, self.batch_size = low_memory, 1 if low_memory else batch_size

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the model, its text encoder and its tokenizer, with their licenses."""
        from v2m.pretrained.licenses import CLAP_LICENSE, model_component

        model = model_component("generator", self.model, "generator.model")
        text_encoder = LicensedComponent("text encoder", "CLAP", CLAP_LICENSE)
        return [model, text_encoder, model_component("tokenizer", self.tokenizer, "generator.tokenizer")]

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Check that the weights are here, and check overlap and melody."""
        choose_device(self._device)
        if controls.melody is not None:
            sound_files.validate_melody(controls.melody)
        with self._engine.model() as engine:
            if self.overlap > engine.window / 3:
                raise UsageError(
                    f"overlap {self.overlap:g} s is more than a third of the {engine.window:.2f} s that the model "
                    f"makes in one go: give `generator.overlap={engine.window / 4:.2g}`"
                )
            self.weights = engine.weights

    def generate_batch(
        self,
        video: Video,
        tags: Tags,
        seeds: Sequence[int],
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> list[Soundtrack]:
        """Generate music of exactly `video.duration` for each of `seeds`, `batch_size` of them at a time.

        In mono at the model's rate; a seed gives the same on one machine, up to rounding, which depends on the batch.
        Inpainted music keeps its own rate, and every sample outside the range.
        """
        controls = controls or Controls()
        self.prepare(tags, controls)
        with self._engine.model() as engine:
            path, inpaint = controls.melody, controls.inpaint
            melody = None if path is None else sound_files.load(path, engine.sample_rate, max(video.duration, 1.0))
            source = None if inpaint is None else InpaintSource.load(inpaint, video.duration)
            soundtracks = engine.generate(
                video, tags, seeds, sampling=self.sampling, overlap=self.overlap, melody=melody,
                melody_strength=self.melody_strength, inpaint_source=source, batch_size=self.batch_size,
                progress=progress,
            )  # fmt: skip
        metadata: dict[str, Any] = {"melody": None if path is None else str(path)}
        metadata |= {} if path is None else {"melody_strength": self.melody_strength}
        metadata |= inpaint_metadata(inpaint)
        return [replace(soundtrack, metadata={**soundtrack.metadata, **metadata}) for soundtrack in soundtracks]

    def _load(self) -> Any:
        from v2m.generators.sonique.checkpoint import load_components
        from v2m.generators.sonique.engine import SoniqueEngine, check_precision

        device = choose_device(self._device)
        check_precision(self.precision, device)
        return SoniqueEngine(load_components(self.model, self.tokenizer), device, self.precision, self.low_memory)
