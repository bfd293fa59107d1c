"""The YuE generator: sections planned on the video, written by stage 1, refined by stage 2, decoded to sound.

Yuan et al., "YuE: Scaling Open Foundation Models for Long-Form Music Generation" (2025).

What imports torch is imported inside the functions that compute: a wrong command or video is told at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from v2m.errors import UsageError
from v2m.frozen import bundle
from v2m.frozen.holder import choose_device
from v2m.generators.yue import lyrics
from v2m.generators.yue.checkpoints import Checkpoints
from v2m.generators.yue.lyrics import Part
from v2m.generators.yue.sections import lengths
from v2m.generators.yue.settings import Settings
from v2m.generators.yue.tokenizer import FILE, Tokenizer
from v2m.generators.yue.tokens import FRAME_RATE
from v2m.io import audio as sound_files
from v2m.timing import codec_frames, sample_count, seconds_of
from v2m.types import Audio, Progress, Score, Section, Steering, Tags, Video, Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from v2m.frozen.xcodec import XCodec
    from v2m.generators.yue.stage1 import Passage

SHORTEST_SUNG = 8.0  # seconds on the mean that lyrics' sections are given; where there is less, the last are left out
REFERENCE, REFERENCE_RATE = 30.0, 16_000  # seconds at most; Hz, as the codec hears
LOW_BATCH = 4  # windows side by side in stage 2, as the published script has it
SHARES = (0.02, 0.70, 0.95)  # of the work done when stage 1 begins, when it ends, when stage 2 ends

logger = logging.getLogger(__name__)


class YuE:
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
        stage2_batch: Windows of 6 s that stage 2 refines side by side; None takes all that memory has room for.
    """

    steers = frozenset({"stems", "vocals", "reference"})

    def __init__(
        self,
        *,
        stage1: str = "m-a-p/YuE-s1-7B-anneal-en-cot",
        stage1_reference: str = "m-a-p/YuE-s1-7B-anneal-en-icl",
        stage2: str = "m-a-p/YuE-s2-1B-general",
        codec: str = bundle.REPOSITORY,
        tokenizer: str | None = None,
        device: str = "auto",
        bits: Literal[4, 8] | None = None,
        low_memory: bool = False,
        keep_loaded: bool = False,
        section: float = 30.0,
        sampling: Settings | None = None,
        stage2_batch: int | None = None,
    ) -> None:
        if not 1 <= section <= 30:
            raise UsageError(f"section {section:g} s must lie between 1 and 30, which the model was trained on")
        if stage2_batch is not None and stage2_batch < 1:
            raise UsageError(f"stage2_batch {stage2_batch} must be 1 or more")
        self._wanted = device
        self._bits: Literal[4, 8] | None = bits
        self._low_memory = low_memory
        self.section = section
        self.sampling = sampling or Settings()
        self.stage2_batch = stage2_batch or (LOW_BATCH if low_memory else None)
        self.weights: tuple[Weights, ...] = ()
        names = {"stage1": stage1, "stage1_reference": stage1_reference, "stage2": stage2, "codec": codec}
        self._checkpoints = Checkpoints(names, keep=keep_loaded)
        self._tokenizer = tokenizer

    @cached_property
    def device(self) -> torch.device:
        """Chosen when it is first asked for: what this machine has, torch knows.

        Raises:
            UsageError: There is no such device.
        """
        return choose_device(self._wanted)

    @property
    def bits(self) -> Literal[4, 8] | None:
        """Bits of the language models' weights; None leaves them as they are."""
        return self._bits or (4 if self._low_memory and self.device.type in {"cuda", "cpu"} else None)

    def prepare(self, tags: Tags, steering: Steering) -> None:
        """Makes sure that all weights are on this machine, downloading what is not, and that device, lyrics and
        reference can be used.

        Raises:
            MissingError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: The lyrics have no words or unknown sections, a reference is no sound, or there is no such
                device.
        """
        if tags.lyrics:
            lyrics.parse(tags.lyrics)
        _sounds(steering)
        choose_device(self._wanted)
        writer = _writer(steering)
        found = self._checkpoints.fetch(writer, () if self._tokenizer else (FILE,))
        self.weights = (found, self._checkpoints.fetch("stage2"), self._checkpoints.fetch("codec"))
        self._tokenizer_of(writer)

    def release(self) -> None:
        """Frees the models, unless they are to be kept."""
        self._checkpoints.done_with()

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        steering: Steering | None = None,
        progress: Progress | None = None,
    ) -> Score:
        """Music of exactly `video.duration`, mono at 44.1 kHz; the same arguments give the same bytes on one machine.

        Stems are "instrumental" and, where the tags ask for vocals and hold lyrics, "vocals". `facts` says what the
        model was told and what it wrote.

        Raises:
            UsageError: The lyrics or the reference cannot be used.
            MissingError: Weights are not here or are another model's.
            MemoryError: Says what to lower.
        """
        from v2m.generators.yue import audio
        from v2m.generators.yue.prompt import genre_line

        steering = steering or Steering()
        tell: Callable[[float], None] = progress or (lambda _: None)
        self.prepare(tags, steering)
        parts = _sung(tags)
        passages = self._plan(video, parts)
        tell(0.0)
        with self._model("codec") as codec:
            silence = int(codec.silence(1)[0])
            reference = _reference(codec, _sounds(steering))
        codes = self._write(tags, passages, reference, tell, seed=seed, silence=None if parts else silence)
        with self._model("codec") as codec:
            decoders = audio.vocoders(self._checkpoints.folder("codec"), codes, self.device)
            rendered = audio.render(codes, codec, decoders, sample_count(video.duration, audio.SAMPLE_RATE))
        tell(1.0)
        return Score(
            audio=Audio(np.stack(list(rendered.values())).sum(axis=0), audio.SAMPLE_RATE),
            stems={name: Audio(wave, audio.SAMPLE_RATE) for name, wave in rendered.items()} if stems else {},
            sections=_sections(passages, video.duration),
            facts={
                "genre_line": genre_line(tags),
                "instrumental": not parts,
                "silence_code": silence,
                "lyrics": [passage.part.text for passage in passages] if parts else [],
                "reference": [str(path) for path in steering.reference],
                "bits": self.bits,
                "device": self.device.type,
            },
        )

    def _plan(self, video: Video, parts: Sequence[Part]) -> list[Passage]:
        """Sections that are together as long as the video, those without words labelled by their place."""
        from v2m.generators.yue.stage1 import Passage

        total = codec_frames(video.duration, FRAME_RATE)
        cuts = [(float(sample_count(cut.time, FRAME_RATE)), cut.strength) for cut in video.picture().cuts]
        longest, shortest = (codec_frames(seconds, FRAME_RATE) for seconds in (self.section, SHORTEST_SUNG))
        frames = lengths(total, cuts, longest, len(parts) or None, shortest)
        if len(parts) > len(frames):
            logger.warning(
                "the video has room for %d of the lyrics' %d sections: the others are not sung", len(frames), len(parts)
            )
        used = [*parts, *lyrics.blank(len(frames))[len(parts) :]][: len(frames)]
        return [Passage(part, count) for part, count in zip(used, frames, strict=True)]

    def _write(
        self,
        tags: Tags,
        passages: Sequence[Passage],
        reference: Tensor | None,
        tell: Callable[[float], None],
        **drawn: Any,
    ) -> dict[str, Tensor]:
        """All eight codes (8, T) of each stem; of the instrumental alone where the voice is kept at `silence`.

        `drawn` is passed on to `stage1.write`.
        """
        import torch

        from v2m.generators.yue import stage1, stage2
        from v2m.generators.yue.prompt import Prompt

        writer = "stage1" if reference is None else "stage1_reference"
        prompt = Prompt(self._tokenizer_of(writer))
        head = prompt.head(tags, [passage.part for passage in passages], reference)
        with self._model(writer) as model:
            told = _between(tell, 0, 1)
            written = stage1.write(model, prompt, head, passages, settings=self.sampling, progress=told, **drawn)
            vocals, instrumental = torch.cat(written, dim=1).cpu()
        self._checkpoints.done_with(writer)
        stems = {"vocals": vocals, "instrumental": instrumental}
        if drawn["silence"] is not None:
            del stems["vocals"]
        with self._model("stage2") as model:
            told = _between(tell, 1, 2)
            refined = stage2.refine(model, list(stems.values()), batch=self.stage2_batch, progress=told)
        self._checkpoints.done_with("stage2")
        return dict(zip(stems, refined, strict=True))

    def _tokenizer_of(self, writer: str) -> Tokenizer:
        return Tokenizer(Path(self._tokenizer) if self._tokenizer else self._checkpoints.folder(writer))

    def _model(self, part: str) -> AbstractContextManager[Any]:
        return self._checkpoints.model(part, self.device, self.bits)


def _sung(tags: Tags) -> list[Part]:
    """The sections of the lyrics; none where nobody is to sing."""
    if not tags.vocals:
        return []
    if not tags.lyrics.strip():
        logger.warning("vocals were asked for but there are no lyrics: the music is instrumental; give --lyrics FILE")
        return []
    return lyrics.parse(tags.lyrics)


def _writer(steering: Steering) -> str:
    return "stage1_reference" if steering.reference else "stage1"


def _sounds(steering: Steering) -> list[Audio]:
    """The reference's files at the codec's rate, as much of them as is used."""
    sounds = [sound_files.load(path, REFERENCE_RATE, REFERENCE) for path in steering.reference]
    if any(seconds_of(len(sound), sound.sample_rate) < 1 for sound in sounds):
        raise UsageError("a reference must last a second or more; 30 s of a chorus do best")
    return sounds


def _reference(codec: XCodec, sounds: Sequence[Audio]) -> Tensor | None:
    """First codes (1, T) or (2, T) of the sound to follow; the longer of two is cut."""
    if not sounds:
        return None
    import torch

    count = min(map(len, sounds)) // codec.spec.hop * codec.spec.hop
    waves = torch.stack([torch.from_numpy(sound.samples[:, :count].mean(axis=0)) for sound in sounds])
    return codec.encode(waves[:, None], codebooks=1)[:, 0]


def _sections(passages: Sequence[Passage], duration: float) -> tuple[Section, ...]:
    ends, found = 0, []
    for passage in passages:
        begin, ends = ends, ends + passage.frames
        start, end = (min(seconds_of(frame, FRAME_RATE), duration) for frame in (begin, ends))
        found.append(Section(passage.part.label, start, end))
    return tuple(found)


def _between(tell: Callable[[float], None], first: int, last: int) -> Progress:
    low, high = SHARES[first], SHARES[last]

    def progress(fraction: float) -> None:
        tell(low + (high - low) * fraction)

    return progress
