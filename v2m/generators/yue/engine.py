"""YuE inference: sections planned on the video, stage 1, stage 2, decoding to audio.

T frames (50 a second), N samples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from v2m.core.progress import ignore_progress, sub_progress
from v2m.core.timing import codec_frames, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, ProgressFn, Section, Soundtrack, Tags, Video
from v2m.generators.options import YuESampling
from v2m.generators.yue import audio, stage1, stage2
from v2m.generators.yue.checkpoints import YuEComponents
from v2m.generators.yue.prompt import LyricsSection, PromptEncoder, genre_line, instrumental_sections
from v2m.generators.yue.stage1 import SectionPlan
from v2m.generators.yue.tokenizer import FRAME_RATE, Tokenizer
from v2m.pretrained.codecs.xcodec import XCodec

MIN_SUNG_SECTION_S = 8.0  # mean duration of sung sections at least; where the video is too short, the last are left out
PROGRESS_SHARES = (0.02, 0.70, 0.95)  # share of the work at which stage 1 begins and ends, and stage 2 ends
MIN_LENGTH_RATIO = 0.5  # of the mean length: no cut makes a section shorter
CUT_REACH_RATIO = 0.25  # of the mean length: largest distance of a cut from a section's even end

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class YuEEngine:
    """The models on this machine; generates one piece after the other."""

    components: YuEComponents  # already fetched
    stage1: str  # name of the component that is stage 1
    tokenizer: Tokenizer
    sampling: YuESampling
    max_section: float  # seconds
    stage2_batch_size: int | None  # None takes all that memory has room for

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

        `lyrics_sections` are what is sung, empty for instrumental music. `references` of style, at the codec's rate,
        are none, one, or two: vocals and the rest. UsageError where the lyrics do not fit into the model's context.
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
            waves = audio.render(codes, codec, vocoders, seconds_to_samples(video.duration, audio.SAMPLE_RATE))
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
        cuts = [(float(seconds_to_samples(cut.time, FRAME_RATE)), cut.strength) for cut in video.visual_features().cuts]
        longest, shortest = (codec_frames(seconds, FRAME_RATE) for seconds in (self.max_section, MIN_SUNG_SECTION_S))
        frames = plan_section_lengths(total, cuts, longest, len(lyrics_sections) or None, shortest)
        if len(lyrics_sections) > len(frames):
            message = "the video has room for %d of the lyrics' %d sections: the others are not sung"
            logger.warning(message, len(frames), len(lyrics_sections))
        instrumental = instrumental_sections(len(frames))[len(lyrics_sections) :]
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
        self.components.release(self.stage1)
        vocals, instrumental = torch.cat(section_codes, dim=1).cpu()
        stems = {"vocals": vocals} if silence_code is None else {}
        stems["instrumental"] = instrumental
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
    bounds = accumulate((section.num_frames for section in sections), initial=0)
    times = pairwise(min(samples_to_seconds(frame, FRAME_RATE), duration) for frame in bounds)
    return tuple(Section(section.lyrics.label, *span) for section, span in zip(sections, times, strict=True))


def plan_section_lengths(
    total: int, cuts: Sequence[tuple[float, float]], longest: int, count: int | None = None, shortest: int = 1
) -> list[int]:
    """Plan the frames of each section: they sum to `total`, none is longer than `longest`.

    Sections end on cuts of the video, (frame, strength 0–1), where they can: of those near the even end of a section,
    on the one of the largest weight, strength − (distance / (`CUT_REACH_RATIO` · mean length))².

    Of `count` sections more are made where they would be too long, fewer where they would be shorter than `shortest` on
    average. None makes the fewest.
    """
    fewest = math.ceil(total / longest)
    count = min(max(count or fewest, fewest), max(fewest, total // shortest))
    bounds = [0]
    for remaining in range(count, 1, -1):
        bounds.append(_section_end(bounds[-1], total, cuts, remaining=remaining, longest=longest))
    return [end - start for start, end in pairwise([*bounds, total])]


def _section_end(start: int, total: int, cuts: Sequence[tuple[float, float]], *, remaining: int, longest: int) -> int:
    """End of the section from `start` on, such that the `remaining` − 1 after it can hold the rest."""
    mean = (total - start) / remaining
    low = max(start + math.ceil(MIN_LENGTH_RATIO * mean), total - longest * (remaining - 1))
    high = min(start + longest, total - (remaining - 1))
    even = min(max(round(start + mean), low), high)
    weights = [(round(frame), strength - ((frame - even) / (CUT_REACH_RATIO * mean)) ** 2) for frame, strength in cuts]
    allowed = [(frame, weight) for frame, weight in weights if low <= frame <= high and weight > 0]
    return max(allowed, key=lambda cut: cut[1])[0] if allowed else even
