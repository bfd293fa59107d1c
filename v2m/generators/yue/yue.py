"""YuE generator: user options and early validation; inference is in `engine`.

Yuan et al., "YuE: Scaling Open Foundation Models for Long-Form Music Generation" (2025).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

from v2m.core.errors import UsageError
from v2m.core.licenses import LicensedComponent
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import GeneratorBase
from v2m.generators.options import YuESampling
from v2m.generators.yue.checkpoints import YuEComponents
from v2m.generators.yue.prompt import LyricsSection, parse_lyrics
from v2m.generators.yue.tokenizer import TOKENIZER_FILE, Tokenizer
from v2m.media import audio as sound_files

MAX_REFERENCE_S, REFERENCE_RATE = 30.0, 16_000  # Hz of the codec
LOW_MEMORY_BATCH_SIZE = 4  # as in the published script

logger = logging.getLogger(__name__)


class YuE(GeneratorBase):
    """YuE; instrumental unless the tags ask for vocals and have lyrics.

    For instrumental music the vocal track is held at the code of silence, and not rendered. Weights are repositories
    of the Hugging Face hub (Apache-2.0), downloaded on first use, or folders.

    Args:
        stage1: The language model of stage 1, 6.2 B parameters; for other languages
            m-a-p/YuE-s1-7B-anneal-zh-cot or -jp-kr-cot.
        stage1_reference: The model used instead where a reference is given.
        stage2: The language model that adds the other codebooks.
        codec: X-Codec with its two vocoders to 44.1 kHz.
        tokenizer: A copy of mm_tokenizer_v0.2's tokenizer.model; None takes the one in stage 1's folder.
        device: auto, cuda, cuda:1, mps or cpu.
        bits: Quantization of the language models' weights, 4 or 8.
        low_memory: 4 bits where the device has kernels for them, and a smaller batch in stage 2.
        keep_loaded: Keep all models in memory, for a service or a folder of videos on a large card.
        max_section: Longest section in seconds; the model was trained on up to 30.
        sampling: Sampling of stage 1's codes.
        stage2_batch_size: Windows of 6 s per batch of stage 2; None takes all that a CUDA card has room for, or 32
            elsewhere.
    """

    capabilities = frozenset({"stems", "vocals", "reference"})

    def __init__(
        self,
        *,
        stage1: str = "m-a-p/YuE-s1-7B-anneal-en-cot",
        stage1_reference: str = "m-a-p/YuE-s1-7B-anneal-en-icl",
        stage2: str = "m-a-p/YuE-s2-1B-general",
        codec: str = "m-a-p/xcodec_mini_infer",
        tokenizer: str | None = None,
        device: str = "auto",
        bits: Literal[4, 8] | None = None,
        low_memory: bool = False,
        keep_loaded: bool = False,
        max_section: float = 30.0,
        sampling: YuESampling | None = None,
        stage2_batch_size: int | None = None,
    ) -> None:
        if not 1 <= max_section <= 30:
            raise UsageError(f"max_section {max_section:g} s must lie between 1 and 30, which the model was trained on")
        if stage2_batch_size is not None and stage2_batch_size < 1:
            raise UsageError(f"stage2_batch_size {stage2_batch_size} must be 1 or more")
        self.max_section = max_section
        self.sampling = sampling or YuESampling()
        self.stage2_batch_size = stage2_batch_size or (LOW_MEMORY_BATCH_SIZE if low_memory else None)
        self.weights: tuple[WeightsInfo, ...] = ()
        names = {"stage1": stage1, "stage1_reference": stage1_reference, "stage2": stage2, "codec": codec}
        self._components = YuEComponents(
            names, device=device, bits=bits, low_memory=low_memory, keep_loaded=keep_loaded
        )
        self._tokenizer_path = tokenizer

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return both language models, the codec and a tokenizer of the user's own, with their licenses."""
        from v2m.pretrained.licenses import model_component

        names = {"generator": _stage1_component(controls), "second stage": "stage2", "codec": "codec"}
        parts = [
            model_component(role, self._components.name(part), f"generator.{part}") for role, part in names.items()
        ]
        tokenizer = self._tokenizer_path
        return parts + ([] if tokenizer is None else [model_component("tokenizer", tokenizer, "generator.tokenizer")])

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights; check lyrics and references."""
        if tags.lyrics:
            parse_lyrics(tags.lyrics)
        for path in controls.reference:
            sound_files.validate_melody(path)
        _ = self._components.device  # UsageError for an absent one
        stage1 = _stage1_component(controls)
        stage1_weights = self._components.fetch(stage1, () if self._tokenizer_path else (TOKENIZER_FILE,))
        self.weights = (stage1_weights, self._components.fetch("stage2"), self._components.fetch("codec"))
        self._load_tokenizer(stage1)

    def release(self) -> None:
        """Free the models, unless `keep_loaded` is set."""
        self._components.release()

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of exactly `video.duration`, mono at 44.1 kHz; deterministic on one machine.

        Stems are "instrumental" and, where the tags ask for vocals and hold lyrics, "vocals".
        """
        from v2m.generators.yue.engine import YuEEngine

        controls = controls or Controls()
        self.prepare(tags, controls)
        stage1 = _stage1_component(controls)
        tokenizer = self._load_tokenizer(stage1)
        engine = YuEEngine(self._components, stage1, tokenizer, self.sampling, self.max_section, self.stage2_batch_size)
        references = [sound_files.load(path, REFERENCE_RATE, MAX_REFERENCE_S) for path in controls.reference]
        soundtrack = engine.generate(video, tags, _sung_sections(tags), references, seed=seed, progress=progress)
        metadata = {**soundtrack.metadata, "reference": [str(path) for path in controls.reference]}
        return replace(soundtrack, stems=soundtrack.stems if stems else {}, metadata=metadata)

    def _load_tokenizer(self, stage1: str) -> Tokenizer:
        return Tokenizer(Path(self._tokenizer_path) if self._tokenizer_path else self._components.folder(stage1))


def _sung_sections(tags: Tags) -> list[LyricsSection]:
    if tags.vocals and tags.lyrics.strip():
        return parse_lyrics(tags.lyrics)
    if tags.vocals:
        logger.warning("vocals were asked for but there are no lyrics: the music is instrumental; give `lyrics`")
    return []


def _stage1_component(controls: Controls) -> str:
    return "stage1_reference" if controls.reference else "stage1"
