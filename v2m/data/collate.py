"""Training batches: crops of samples whose codes, frames and visual events start at the same instant.

B batch, K codebooks, T codec frames, F frames of the crop, G of the whole video, P tokens per frame, W their dimension,
R event steps, C event channels, L text tokens, D their dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from v2m.core import timing
from v2m.core.timing import codec_frames, samples_to_seconds, seconds_to_samples, segment_times
from v2m.data.schema import Manifest
from v2m.data.shards import Sample
from v2m.models.conditioning import Condition
from v2m.models.visual_conditioner import VisualInputs


class Batch(NamedTuple):
    """A batch of clips."""

    keys: list[str]
    codes: Tensor  # (B, K, T) int64; 0 after the end of a short clip
    lengths: Tensor  # (B,) int64 valid codec frames; 0 for a row that only fills a batch of validation
    visual: VisualInputs
    text: Condition  # (B, L, D); a row without tokens = no text
    num_skipped: int = 0  # samples that could not be used

    def to(self, device: torch.device | str) -> Batch:
        moved = self.codes.to(device), self.lengths.to(device), self.visual.to(device), self.text.to(device)
        return Batch(self.keys, *moved, self.num_skipped)


class Clip(NamedTuple):
    """A crop of one sample; times in seconds from its start."""

    key: str
    codes: np.ndarray  # (K, T)
    short_term: np.ndarray  # (F, P, W)
    short_term_times: np.ndarray  # (F,)
    long_term: np.ndarray  # (G, P, W)
    long_term_times: np.ndarray  # (G,)
    events: np.ndarray  # (R, C)
    event_times: np.ndarray  # (R,)
    text: np.ndarray  # (L, D)


@dataclass(frozen=True)
class CropCollator:
    """Crop samples to `window` seconds and collate the crops.

    `edge_share` of the training crops, 0–1, lie at the start or at the end of their sample, half of them at either.
    """

    manifest: Manifest
    window: float
    edge_share: float = 0.0

    @property
    def crop_sizes(self) -> tuple[int, int, int]:
        """T, F and R of a full crop."""
        rates = self.manifest.video_frame_rate, self.manifest.event_rate
        frames, instants = (timing.segment_count(self.window, rate) for rate in rates)
        return codec_frames(self.window, self.manifest.codec_frame_rate), frames, instants

    def crop_position(self, random: float) -> float:
        """Return the position of a training crop for a uniform random number in [0, 1)."""
        edge = self.edge_share / 2
        if random < edge:
            return 0.0
        return 1.0 if random >= 1 - edge else (random - edge) / (1 - 2 * edge)

    def crop(self, sample: Sample, position: float) -> Clip:
        """Crop a sample; a short one is returned whole.

        `position` is 0–1 over the frames at which a crop can start. The codes start at that frame's time, rounded to a
        codec frame; all times count from there.
        """
        meta, (t, f, r) = sample.meta, self.crop_sizes
        rate = self.manifest.codec_frame_rate
        num_codes, num_frames, num_events = sample.codes.shape[1], len(sample.frames), len(sample.events)
        frame = min(int(position * (max(num_frames - f, 0) + 1)), max(num_frames - f, 0))
        code = min(
            seconds_to_samples(timing.segment_start(frame, meta.duration, num_frames), rate), max(num_codes - t, 0)
        )
        start = samples_to_seconds(code, rate)
        event = min(timing.segment_at(start, meta.duration, num_events), max(num_events - r, 0))
        codes, text = sample.codes[:, code : code + t], sample.text
        frames, events = sample.frames[frame : frame + f], sample.events[event : event + r]
        times = segment_times(meta.duration, num_frames)[frame : frame + f] - start
        event_times = segment_times(meta.duration, num_events)[event : event + r] - start
        long_term_times = segment_times(meta.video_duration, len(sample.long_term)) - meta.start - start
        return Clip(meta.key, codes, frames, times, sample.long_term, long_term_times, events, event_times, text)

    def empty_clip(self) -> Clip:
        manifest = self.manifest
        codes, frames = (manifest.num_codebooks, 0), (0, manifest.num_tokens, manifest.vision_dim)
        shapes = (codes, frames, 0, frames, 0, (0, len(manifest.event_channels)), 0, (0, manifest.text_dim))
        return Clip("", *(np.zeros(shape) for shape in shapes))

    def collate(self, clips: Sequence[Clip], num_skipped: int = 0) -> Batch:
        """Stack clips, padded with 0 to the length of a full crop."""
        t, f, r = self.crop_sizes
        codes = [clip.codes.astype(np.int64).T for clip in clips]
        padded_codes = pad_stack(codes, t, np.int64)[0].transpose(1, 2).contiguous()
        lengths = torch.tensor([len(clip_codes) for clip_codes in codes])
        text = pad_stack([clip.text for clip in clips], max(1, *(len(clip.text) for clip in clips)))
        visual = VisualInputs(
            *_pad_timed([(clip.short_term, clip.short_term_times) for clip in clips], f),
            *_pad_timed([(clip.long_term, clip.long_term_times) for clip in clips], self.manifest.num_long_term_frames),
            *_pad_timed([(clip.events, clip.event_times) for clip in clips], r),
        )
        return Batch([clip.key for clip in clips], padded_codes, lengths, visual, Condition(*text), num_skipped)


def pad_stack(arrays: Sequence[np.ndarray], length: int, dtype: type = np.float32) -> tuple[Tensor, Tensor]:
    """Stack arrays (N, …) as (B, `length`, …), with the mask (B, `length`), True where there is data."""
    stacked = np.zeros((len(arrays), length, *arrays[0].shape[1:]), dtype)
    mask = np.zeros((len(arrays), length), bool)
    for row, array in enumerate(arrays):
        stacked[row, : len(array)] = array
        mask[row, : len(array)] = True
    return torch.from_numpy(stacked), torch.from_numpy(mask)


def _pad_timed(pairs: Sequence[tuple[np.ndarray, np.ndarray]], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Stack values (N, …) and times (N,) as (B, `length`, …) and (B, `length`), with the mask."""
    values, mask = pad_stack([array for array, _ in pairs], length)
    return values, pad_stack([times for _, times in pairs], length)[0], mask
