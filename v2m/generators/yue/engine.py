"""YuE inference: sections planned on the video, stage 1, stage 2, decoding to audio.

T frames (50 a second), N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from v2m.core.progress import ignore_progress, sub_progress
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

MIN_SUNG_SECTION_S = 8.0  # mean duration of sung sections at least; where the video is too short, the last are left out
PROGRESS_SHARES = (0.02, 0.70, 0.95)  # share of the work at which stage 1 begins and ends, and stage 2 ends

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class YuEEngine:
    """The models on this machine; generates one piece after the other.

    Args:
        components: The models, already fetched.
        stage1: Name of the component that is stage 1.
        tokenizer: Stage 1's tokenizer.
        sampling: Sampling of stage 1's codes.
        max_section: Longest section in seconds.
        stage2_batch_size: Windows per batch of stage 2; None takes all that memory has room for.
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
        """Generate music of exactly `video.duration`, mono at 44.1 kHz, with its stems.

        Args:
            video: Gives duration and cuts.
            tags: Give the genre line.
            lyrics_sections: Sung sections; empty for instrumental music.
            references: None, one or two (vocals and rest) references of style, at the codec's rate.
            seed: The same seed gives the same piece.
            progress: Receives the share of the work done.

        Raises:
            UsageError: The lyrics do not fit into the model's context.
            DependencyError: Weights are broken or another model's.
            MemoryError: The message names an option to lower.
        """
        progress = progress or ignore_progress
        sections = self._plan_sections(video, lyrics_sections)
        progress(0.0)
        with self.components.model("codec") as codec:
            silence = int(codec.silence_codes(1)[0])
            reference = _encode_reference(codec, references)
        codes = self._generate_codes(
            tags, sections, reference, progress, seed=seed, silence_code=None if lyrics_sections else silence
        )
        with self.components.model("codec") as codec:
            vocoders = audio.load_vocoders(self.components.folder("codec"), codes, self.components.device)
            waves = audio.render(codes, codec, vocoders, sample_count(video.duration, audio.SAMPLE_RATE))
        progress(1.0)
        return Soundtrack(
            audio=Audio(np.stack(list(waves.values())).sum(axis=0), audio.SAMPLE_RATE),
            stems={name: Audio(wave, audio.SAMPLE_RATE) for name, wave in waves.items()},
            sections=_to_sections(sections, video.duration),
            metadata={
                "genre_line": genre_line(tags),
                "instrumental": not lyrics_sections,
                "silence_code": silence,
                "lyrics": [section.lyrics.text for section in sections] if lyrics_sections else [],
                "bits": self.components.bits,
                "device": self.components.device.type,
            },
        )

    def _plan_sections(self, video: Video, lyrics_sections: Sequence[LyricsSection]) -> list[SectionPlan]:
        """Plan sections of the video's total length; those without lyrics are labeled by their position."""
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
        instrumental = lyrics.instrumental_sections(len(frames))[len(lyrics_sections) :]
        planned = [*lyrics_sections, *instrumental][: len(frames)]
        return [SectionPlan(section, count) for section, count in zip(planned, frames, strict=True)]

    def _generate_codes(
        self,
        tags: Tags,
        sections: Sequence[SectionPlan],
        reference: Tensor | None,
        progress: ProgressFn,
        *,
        seed: int,
        silence_code: int | None,
    ) -> dict[str, Tensor]:
        """All eight codes (8, T) of each stem; the instrumental stem alone where a silence code is given."""
        prompt = PromptEncoder(self.tokenizer)
        head = prompt.head(tags, [section.lyrics for section in sections], reference)
        with self.components.model(self.stage1) as model:
            section_codes = stage1.generate_codes(
                model, prompt, head, sections, seed=seed, sampling=self.sampling, silence_code=silence_code,
                progress=sub_progress(progress, *PROGRESS_SHARES[:2]),
            )  # fmt: skip
            vocals, instrumental = torch.cat(section_codes, dim=1).cpu()
        self.components.release(self.stage1)
        stems = {"vocals": vocals, "instrumental": instrumental}
        if silence_code is not None:
            del stems["vocals"]
        with self.components.model("stage2") as model:
            refined = stage2.refine(
                model, list(stems.values()), batch_size=self.stage2_batch_size,
                progress=sub_progress(progress, *PROGRESS_SHARES[1:]),
            )  # fmt: skip
        self.components.release("stage2")
        return dict(zip(stems, refined, strict=True))


def _encode_reference(codec: XCodec, references: Sequence[Audio]) -> Tensor | None:
    """Codebook 0 of the references, (1, T) or (2, T); the longer of two is cut."""
    if not references:
        return None
    count = min(map(len, references)) // codec.hop_length * codec.hop_length
    waves = torch.stack([torch.from_numpy(reference.samples[:, :count].mean(axis=0)) for reference in references])
    return codec.encode(waves[:, None], num_codebooks=1)[:, 0]


def _to_sections(sections: Sequence[SectionPlan], duration: float) -> tuple[Section, ...]:
    position, result = 0, []
    for section in sections:
        start, position = position, position + section.num_frames
        times = (min(seconds_of(frame, FRAME_RATE), duration) for frame in (start, position))
        result.append(Section(section.lyrics.label, *times))
    return tuple(result)
