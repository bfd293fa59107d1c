"""The YuE generator: what a user sets, and what is refused before any work. The work itself is in `piece`.

Yuan et al., "YuE: Scaling Open Foundation Models for Long-Form Music Generation" (2025).

Nothing here imports torch, so that a wrong command or video is told at once. There is no TYPE_CHECKING block either:
jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

from v2m.core.errors import UsageError
from v2m.core.timing import seconds_of
from v2m.core.types import Audio, Controls, ProgressFn, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import GeneratorBase
from v2m.generators.yue import lyrics
from v2m.generators.yue.checkpoints import YuEComponents
from v2m.generators.yue.lyrics import LyricsSection
from v2m.generators.yue.options import YuESampling
from v2m.generators.yue.tokenizer import TOKENIZER_FILE, Tokenizer
from v2m.media import audio as sound_files
from v2m.pretrained.codecs import xcodec_files

MAX_REFERENCE_S, REFERENCE_RATE = 30.0, 16_000  # seconds at most; Hz, as the codec hears
LOW_MEMORY_BATCH_SIZE = 4  # windows side by side in stage 2, as the published script has it

logger = logging.getLogger(__name__)


class YuE(GeneratorBase):
    """YuE. Unless the tags ask for vocals nobody sings: the voice is kept at the code of silence, and is not rendered.

    Weights are repositories of the Hugging Face hub (Apache-2.0), downloaded on first use, or folders.

    Args:
        stage1: The language model that writes the music, 6.2 B parameters; another language's is
            m-a-p/YuE-s1-7B-anneal-zh-cot or -jp-kr-cot.
        stage1_reference: The one that takes its place where a reference is given.
        stage2: The language model that refines each frame.
        codec: X-Codec with its two decoders to 44.1 kHz.
        tokenizer: A copy of mm_tokenizer_v0.2's tokenizer.model; None takes the one in stage 1's folder.
        device: auto, cuda, cuda:1, mps or cpu.
        bits: 4 or 8 makes the language models' weights so many bits large.
        low_memory: 4 bits where the device has kernels for them, and a smaller batch in stage 2.
        keep_loaded: Whether all models stay in memory, for a service or a folder of videos on a large card.
        section: Longest section in seconds; the model was trained on up to 30.
        sampling: How stage 1 draws its codes.
        stage2_batch: Windows of 6 s that stage 2 refines side by side; None takes all that a CUDA card has room for, or
            32 elsewhere.
    """

    capabilities = frozenset({"stems", "vocals", "reference"})

    def __init__(
        self,
        *,
        stage1: str = "m-a-p/YuE-s1-7B-anneal-en-cot",
        stage1_reference: str = "m-a-p/YuE-s1-7B-anneal-en-icl",
        stage2: str = "m-a-p/YuE-s2-1B-general",
        codec: str = xcodec_files.REPOSITORY,
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

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Makes sure that all weights are on this machine, downloading what is not, and that device, lyrics and
        reference can be used.

        Raises:
            DependencyError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: The lyrics have no words or unknown sections, a reference is no sound, or there is no such
                device.
        """
        if tags.lyrics:
            lyrics.parse_lyrics(tags.lyrics)
        _load_references(controls)
        _ = self._components.device
        writer = _stage1_component(controls)
        found = self._components.fetch(writer, () if self._tokenizer_path else (TOKENIZER_FILE,))
        self.weights = (found, self._components.fetch("stage2"), self._components.fetch("codec"))
        self._load_tokenizer(writer)

    def release(self) -> None:
        """Frees the models, unless they are to be kept."""
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
        """Music of exactly `video.duration`, mono at 44.1 kHz; the same arguments give the same bytes on one machine.

        Stems are "instrumental" and, where the tags ask for vocals and hold lyrics, "vocals". `facts` says what the
        model was told and what it wrote.

        Raises:
            UsageError: The lyrics or the reference cannot be used.
            DependencyError: Weights are not here or are another model's.
            MemoryError: Says what to lower.
        """
        from v2m.generators.yue import engine

        controls = controls or Controls()
        self.prepare(tags, controls)
        writer = _stage1_component(controls)
        player = engine.YuEEngine(
            self._components,
            writer,
            self._load_tokenizer(writer),
            self.sampling,
            self.max_section,
            self.stage2_batch_size,
        )
        score = player.generate(
            video, tags, _sung_sections(tags), _load_references(controls), seed=seed, progress=progress
        )
        facts = {**score.metadata, "reference": [str(path) for path in controls.reference]}
        return replace(score, stems=score.stems if stems else {}, metadata=facts)

    def _load_tokenizer(self, stage1: str) -> Tokenizer:
        return Tokenizer(Path(self._tokenizer_path) if self._tokenizer_path else self._components.folder(stage1))


def _sung_sections(tags: Tags) -> list[LyricsSection]:
    """The sections of the lyrics; none where nobody is to sing."""
    if not tags.vocals:
        return []
    if not tags.lyrics.strip():
        logger.warning("vocals were asked for but there are no lyrics: the music is instrumental; give --lyrics FILE")
        return []
    return lyrics.parse_lyrics(tags.lyrics)


def _stage1_component(controls: Controls) -> str:
    return "stage1_reference" if controls.reference else "stage1"


def _load_references(controls: Controls) -> list[Audio]:
    """The reference's files at the codec's rate, as much of them as is used."""
    sounds = [sound_files.load(path, REFERENCE_RATE, MAX_REFERENCE_S) for path in controls.reference]
    if any(seconds_of(len(sound), sound.sample_rate) < 1 for sound in sounds):
        raise UsageError("a reference must last a second or more; 30 s of a chorus do best")
    return sounds
