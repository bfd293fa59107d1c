"""A piece from begin to end: sections planned on the video, written by stage 1, refined by stage 2, decoded to sound.

T frames (50 a second), N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v2m.core.timing import codec_frames, sample_count, seconds_of
from v2m.core.types import Audio, ProgressFn, Section, Soundtrack, Tags, Video
from v2m.generators.yue import audio, lyrics, stage1, stage2
from v2m.generators.yue.checkpoints import Checkpoints
from v2m.generators.yue.lyrics import Part
from v2m.generators.yue.options import Settings
from v2m.generators.yue.prompt import Prompt, genre_line
from v2m.generators.yue.sections import lengths
from v2m.generators.yue.stage1 import Passage
from v2m.generators.yue.tokenizer import Tokenizer
from v2m.generators.yue.tokens import FRAME_RATE
from v2m.pretrained.codecs.xcodec import XCodec

SHORTEST_SUNG = 8.0  # seconds on the mean that lyrics' sections are given; where there is less, the last are left out
SHARES = (0.02, 0.70, 0.95)  # of the work done when stage 1 begins, when it ends, when stage 2 ends

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Player:
    """Plays one piece after the other.

    Args:
        checkpoints: The models, which have been fetched.
        writer: Which of them is stage 1.
        tokenizer: Stage 1's.
        sampling: How stage 1 draws its codes.
        section: Longest section in seconds.
        batch: Windows that stage 2 refines side by side; None takes all that memory has room for.
    """

    checkpoints: Checkpoints
    writer: str
    tokenizer: Tokenizer
    sampling: Settings
    section: float
    batch: int | None

    def play(
        self,
        video: Video,
        tags: Tags,
        parts: Sequence[Part],
        sounds: Sequence[Audio],
        *,
        seed: int,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration`, mono at 44.1 kHz, with its stems.

        Args:
            video: What it is for.
            tags: What it should be.
            parts: What is sung; nobody sings where there are none.
            sounds: None, one or two (voice and rest) to follow in style, as the codec hears.
            seed: The same gives the same piece.
            progress: Told how much is done.

        Raises:
            UsageError: The words do not fit into what the model can hold.
            MissingError: Weights are broken or another model's.
            MemoryError: Says what to lower.
        """
        tell: Callable[[float], None] = progress or (lambda _: None)
        passages = self._plan(video, parts)
        tell(0.0)
        with self.checkpoints.model("codec") as codec:
            silence = int(codec.silence_codes(1)[0])
            reference = _reference(codec, sounds)
        codes = self._codes(tags, passages, reference, tell, seed=seed, silence=None if parts else silence)
        with self.checkpoints.model("codec") as codec:
            decoders = audio.vocoders(self.checkpoints.folder("codec"), codes, self.checkpoints.device)
            rendered = audio.render(codes, codec, decoders, sample_count(video.duration, audio.SAMPLE_RATE))
        tell(1.0)
        return Soundtrack(
            audio=Audio(np.stack(list(rendered.values())).sum(axis=0), audio.SAMPLE_RATE),
            stems={name: Audio(wave, audio.SAMPLE_RATE) for name, wave in rendered.items()},
            sections=_sections(passages, video.duration),
            metadata={
                "genre_line": genre_line(tags),
                "instrumental": not parts,
                "silence_code": silence,
                "lyrics": [passage.part.text for passage in passages] if parts else [],
                "bits": self.checkpoints.bits,
                "device": self.checkpoints.device.type,
            },
        )

    def _plan(self, video: Video, parts: Sequence[Part]) -> list[Passage]:
        """Sections that are together as long as the video, those without words labelled by their place."""
        total = codec_frames(video.duration, FRAME_RATE)
        cuts = [(float(sample_count(cut.time, FRAME_RATE)), cut.strength) for cut in video.visual_features().cuts]
        longest, shortest = (codec_frames(seconds, FRAME_RATE) for seconds in (self.section, SHORTEST_SUNG))
        frames = lengths(total, cuts, longest, len(parts) or None, shortest)
        if len(parts) > len(frames):
            logger.warning(
                "the video has room for %d of the lyrics' %d sections: the others are not sung", len(frames), len(parts)
            )
        used = [*parts, *lyrics.blank(len(frames))[len(parts) :]][: len(frames)]
        return [Passage(part, count) for part, count in zip(used, frames, strict=True)]

    def _codes(
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
        prompt = Prompt(self.tokenizer)
        head = prompt.head(tags, [passage.part for passage in passages], reference)
        with self.checkpoints.model(self.writer) as model:
            told = _between(tell, 0, 1)
            written = stage1.write(model, prompt, head, passages, settings=self.sampling, progress=told, **drawn)
            vocals, instrumental = torch.cat(written, dim=1).cpu()
        self.checkpoints.done_with(self.writer)
        stems = {"vocals": vocals, "instrumental": instrumental}
        if drawn["silence"] is not None:
            del stems["vocals"]
        with self.checkpoints.model("stage2") as model:
            told = _between(tell, 1, 2)
            refined = stage2.refine(model, list(stems.values()), batch=self.batch, progress=told)
        self.checkpoints.done_with("stage2")
        return dict(zip(stems, refined, strict=True))


def _reference(codec: XCodec, sounds: Sequence[Audio]) -> Tensor | None:
    """First codes (1, T) or (2, T) of the sound to follow; the longer of two is cut."""
    if not sounds:
        return None
    count = min(map(len, sounds)) // codec.hop_length * codec.hop_length
    waves = torch.stack([torch.from_numpy(sound.samples[:, :count].mean(axis=0)) for sound in sounds])
    return codec.encode(waves[:, None], num_codebooks=1)[:, 0]


def _sections(passages: Sequence[Passage], duration: float) -> tuple[Section, ...]:
    ends, found = 0, []
    for passage in passages:
        begin, ends = ends, ends + passage.frames
        start, end = (min(seconds_of(frame, FRAME_RATE), duration) for frame in (begin, ends))
        found.append(Section(passage.part.label, start, end))
    return tuple(found)


def _between(tell: Callable[[float], None], first: int, last: int) -> ProgressFn:
    low, high = SHARES[first], SHARES[last]

    def progress(fraction: float) -> None:
        tell(low + (high - low) * fraction)

    return progress
