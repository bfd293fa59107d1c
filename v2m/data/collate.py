"""What training sees at once: crops of samples in which codes, pictures and rhythm begin at the same instant.

B batch, K codebooks, T codec frames, F frames of the crop, G of the whole video, P tokens a frame, W their width, R
instants of rhythm, C what is measured at each, L text tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from v2m.core.timing import codec_frames, sample_count, seconds_of, step_at, step_begin, step_count, step_times
from v2m.data.samples import Sample
from v2m.data.schema import Manifest
from v2m.models.conditioning import Condition
from v2m.models.visual.inputs import VisualInputs


class Batch(NamedTuple):
    keys: list[str]
    codes: Tensor  # (B, K, T) int64; 0 behind the end of a short clip
    lengths: Tensor  # (B,) int64 codec frames that are there; 0 for a row that only fills a batch of validation
    seen: VisualInputs
    text: Condition  # (B, L, D); a row without tokens = no text
    skipped: int = 0  # samples that could not be used

    def to(self, device: torch.device | str) -> Batch:
        moved = self.codes.to(device), self.lengths.to(device), self.seen.to(device), self.text.to(device)
        return Batch(self.keys, *moved, self.skipped)


class Clip(NamedTuple):
    """A crop of one sample; times in seconds from its begin."""

    key: str
    codes: np.ndarray  # (K, T)
    near: np.ndarray  # (F, P, W)
    near_times: np.ndarray  # (F,)
    whole: np.ndarray  # (G, P, W)
    whole_times: np.ndarray  # (G,)
    rhythm: np.ndarray  # (R, C)
    rhythm_times: np.ndarray  # (R,)
    text: np.ndarray  # (L, D)


@dataclass(frozen=True)
class CropCollator:
    """Crops of `window` seconds of the samples that a manifest describes, and batches of them."""

    manifest: Manifest
    window: float

    @property
    def sizes(self) -> tuple[int, int, int]:
        """T, F and R of a whole crop."""
        rates = self.manifest.frame_rate, self.manifest.rhythm_rate
        frames, instants = (step_count(self.window, rate) for rate in rates)
        return codec_frames(self.window, self.manifest.code_rate), frames, instants

    def crop(self, sample: Sample, where: float) -> Clip:
        """From `where` in 0–1 of the places a crop can begin at, the begins of frames; the whole of a short sample."""
        meta, (t, f, r) = sample.meta, self.sizes
        total, frames, instants = sample.codes.shape[1], len(sample.frames), len(sample.rhythm)
        first = min(int(where * (max(frames - f, 0) + 1)), max(frames - f, 0))
        begin = min(sample_count(step_begin(first, meta.duration, frames), self.manifest.code_rate), max(total - t, 0))
        at = seconds_of(begin, self.manifest.code_rate)  # as the codes have it
        beat = min(step_at(at, meta.duration, instants), max(instants - r, 0))
        return Clip(
            meta.key,
            sample.codes[:, begin : begin + t],
            sample.frames[first : first + f],
            step_times(meta.duration, frames)[first : first + f] - at,
            sample.whole,
            step_times(meta.video_duration, len(sample.whole)) - meta.begin - at,
            sample.rhythm[beat : beat + r],
            step_times(meta.duration, instants)[beat : beat + r] - at,
            sample.text,
        )

    def blank(self) -> Clip:
        """A clip of no length."""
        held = self.manifest
        frame, nothing = (held.tokens, held.width), np.zeros(0)
        return Clip(
            "",
            np.zeros((held.codebooks, 0), np.int64),
            np.zeros((0, *frame)),
            nothing,
            np.zeros((0, *frame)),
            nothing,
            np.zeros((0, len(held.rhythm))),
            nothing,
            np.zeros((0, held.text_width)),
        )

    def batch(self, clips: Sequence[Clip], skipped: int = 0) -> Batch:
        """Side by side, filled up with 0 to the length of a whole crop."""
        t, f, r = self.sizes
        codes = [clip.codes.astype(np.int64).T for clip in clips]
        near, near_mask = pad_stack([clip.near for clip in clips], f)
        whole, whole_mask = pad_stack([clip.whole for clip in clips], self.manifest.whole)
        rhythm, rhythm_mask = pad_stack([clip.rhythm for clip in clips], r)
        text, text_mask = pad_stack([clip.text for clip in clips], max(1, *(len(clip.text) for clip in clips)))
        seen = VisualInputs(
            near,
            pad_stack([clip.near_times for clip in clips], f)[0],
            near_mask,
            whole,
            pad_stack([clip.whole_times for clip in clips], self.manifest.whole)[0],
            whole_mask,
            rhythm,
            pad_stack([clip.rhythm_times for clip in clips], r)[0],
            rhythm_mask,
        )
        return Batch(
            [clip.key for clip in clips],
            pad_stack(codes, t, np.int64)[0].transpose(1, 2).contiguous(),
            torch.tensor([len(each) for each in codes]),
            seen,
            Condition(text, text_mask),
            skipped,
        )


def pad_stack(parts: Sequence[np.ndarray], length: int, dtype: type = np.float32) -> tuple[Tensor, Tensor]:
    """(N, …) each → (B, `length`, …), and (B, `length`) True where there is something."""
    full = np.zeros((len(parts), length, *parts[0].shape[1:]), dtype)
    there = np.zeros((len(parts), length), bool)
    for row, part in enumerate(parts):
        full[row, : len(part)] = part
        there[row, : len(part)] = True
    return torch.from_numpy(full), torch.from_numpy(there)
