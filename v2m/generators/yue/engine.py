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
from v2m.generators.yue.checkpoints import YuEComponents
from v2m.generators.yue.lyrics import LyricsSection
from v2m.generators.yue.options import YuESampling
from v2m.generators.yue.prompt import PromptEncoder, genre_line
from v2m.generators.yue.sections import plan_section_lengths
from v2m.generators.yue.stage1 import SectionPlan
from v2m.generators.yue.tokenizer import Tokenizer
from v2m.generators.yue.tokens import FRAME_RATE
from v2m.pretrained.codecs.xcodec import XCodec

MIN_SUNG_SECTION_S = (
    8.0  # seconds on the mean that lyrics' sections are given; where there is less, the last are left out
)
PROGRESS_SHARES = (0.02, 0.70, 0.95)  # of the work done when stage 1 begins, when it ends, when stage 2 ends

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class YuEEngine:
    """Plays one piece after the other.

    Args:
        checkpoints: The models, which have been fetched.
        writer: Which of them is stage 1.
        tokenizer: Stage 1's.
        sampling: How stage 1 draws its codes.
        section: Longest section in seconds.
        batch: Windows that stage 2 refines side by side; None takes all that memory has room for.
    """

    components: YuEComponents
    stage1: str
    tokenizer: Tokenizer
    sampling: YuESampling
    max_section: float
    stage2_batch_size: int | None

    def generate(
        self,
        video: Video,
        tags: Tags,
        lyrics_sections: Sequence[LyricsSection],
        references: Sequence[Audio],
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
            DependencyError: Weights are broken or another model's.
            MemoryError: Says what to lower.
        """
        tell: Callable[[float], None] = progress or (lambda _: None)
        passages = self._plan_sections(video, lyrics_sections)
        tell(0.0)
        with self.components.model("codec") as codec:
            silence = int(codec.silence_codes(1)[0])
            reference = _encode_reference(codec, references)
        codes = self._generate_codes(
            tags, passages, reference, tell, seed=seed, silence_code=None if lyrics_sections else silence
        )
        with self.components.model("codec") as codec:
            decoders = audio.load_vocoders(self.components.folder("codec"), codes, self.components.device)
            rendered = audio.render(codes, codec, decoders, sample_count(video.duration, audio.SAMPLE_RATE))
        tell(1.0)
        return Soundtrack(
            audio=Audio(np.stack(list(rendered.values())).sum(axis=0), audio.SAMPLE_RATE),
            stems={name: Audio(wave, audio.SAMPLE_RATE) for name, wave in rendered.items()},
            sections=_to_sections(passages, video.duration),
            metadata={
                "genre_line": genre_line(tags),
                "instrumental": not lyrics_sections,
                "silence_code": silence,
                "lyrics": [passage.lyrics.text for passage in passages] if lyrics_sections else [],
                "bits": self.components.bits,
                "device": self.components.device.type,
            },
        )

    def _plan_sections(self, video: Video, lyrics_sections: Sequence[LyricsSection]) -> list[SectionPlan]:
        """Sections that are together as long as the video, those without words labelled by their place."""
        total = codec_frames(video.duration, FRAME_RATE)
        cuts = [(float(sample_count(cut.time, FRAME_RATE)), cut.strength) for cut in video.visual_features().cuts]
        longest, shortest = (codec_frames(seconds, FRAME_RATE) for seconds in (self.max_section, MIN_SUNG_SECTION_S))
        frames = plan_section_lengths(total, cuts, longest, len(lyrics_sections) or None, shortest)
        if len(lyrics_sections) > len(frames):
            logger.warning(
                "the video has room for %d of the lyrics' %d sections: the others are not sung",
                len(frames),
                len(lyrics_sections),
            )
        used = [*lyrics_sections, *lyrics.instrumental_sections(len(frames))[len(lyrics_sections) :]][: len(frames)]
        return [SectionPlan(part, count) for part, count in zip(used, frames, strict=True)]

    def _generate_codes(
        self,
        tags: Tags,
        sections: Sequence[SectionPlan],
        reference: Tensor | None,
        tell: Callable[[float], None],
        **options: Any,
    ) -> dict[str, Tensor]:
        """All eight codes (8, T) of each stem; of the instrumental alone where the voice is kept at `silence`.

        `drawn` is passed on to `stage1.write`.
        """
        prompt = PromptEncoder(self.tokenizer)
        head = prompt.head(tags, [passage.lyrics for passage in sections], reference)
        with self.components.model(self.stage1) as model:
            told = _between(tell, 0, 1)
            written = stage1.generate_codes(
                model, prompt, head, sections, sampling=self.sampling, progress=told, **options
            )
            vocals, instrumental = torch.cat(written, dim=1).cpu()
        self.components.release(self.stage1)
        stems = {"vocals": vocals, "instrumental": instrumental}
        if options["silence_code"] is not None:
            del stems["vocals"]
        with self.components.model("stage2") as model:
            told = _between(tell, 1, 2)
            refined = stage2.refine(model, list(stems.values()), batch_size=self.stage2_batch_size, progress=told)
        self.components.release("stage2")
        return dict(zip(stems, refined, strict=True))


def _encode_reference(codec: XCodec, references: Sequence[Audio]) -> Tensor | None:
    """First codes (1, T) or (2, T) of the sound to follow; the longer of two is cut."""
    if not references:
        return None
    count = min(map(len, references)) // codec.hop_length * codec.hop_length
    waves = torch.stack([torch.from_numpy(sound.samples[:, :count].mean(axis=0)) for sound in references])
    return codec.encode(waves[:, None], num_codebooks=1)[:, 0]


def _to_sections(sections: Sequence[SectionPlan], duration: float) -> tuple[Section, ...]:
    ends, found = 0, []
    for passage in sections:
        begin, ends = ends, ends + passage.num_frames
        start, end = (min(seconds_of(frame, FRAME_RATE), duration) for frame in (begin, ends))
        found.append(Section(passage.lyrics.label, start, end))
    return tuple(found)


def _between(tell: Callable[[float], None], first: int, last: int) -> ProgressFn:
    low, high = PROGRESS_SHARES[first], PROGRESS_SHARES[last]

    def progress(fraction: float) -> None:
        tell(low + (high - low) * fraction)

    return progress
