"""Crops in which codes, pictures and rhythm begin at the same instant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.fixtures.tiny import shards as made
from v2m.data.collate import CropCollator
from v2m.data.shards import Sample, decode


def sample(number: int = 1, seconds: float = 8.0) -> Sample:
    return decode(made.members(number, seconds), made.KEPT)


@pytest.mark.parametrize("seconds", [8.0, 7.9, 5.03, 4.0])
@pytest.mark.parametrize("where", [0.0, 0.37, 0.5, 0.999999])
def test_crop_covers_one_time_range_in_all_members(seconds: float, where: float) -> None:
    """The samples carry their own second in the video: as a code, and in the first channel of what is seen."""
    collator = CropCollator(made.KEPT, 3.0)
    clip = collator.crop(sample(1, seconds), where)
    begins = {round(float(b), 9) for b in clip.short_term[:, 0, 0].astype(float) - clip.short_term_times}
    assert (clip.codes.shape[1], len(clip.short_term), len(clip.events)) == collator.crop_sizes == (150, 6, 60)
    begin = np.mean(list(begins))
    frame = round(begin * 50)
    assert (clip.codes[0] == (np.arange(150) + frame + 1) % 64).all()
    for curve, times in (
        (clip.short_term[:, 0, 0], clip.short_term_times),
        (clip.long_term[:, 0, 0], clip.long_term_times),
        (clip.events[:, 0], clip.event_times),
    ):
        assert np.abs(curve.astype(float) - times - frame / 50).max() < 0.02  # half precision
    assert abs(clip.short_term_times[0] - 0.25) < 0.27  # and what is seen begins where the codes do
    assert abs(clip.event_times[0] - 0.025) < 0.03


def test_crops_start_at_any_frame() -> None:
    collator = CropCollator(made.KEPT, 3.0)
    clips = [collator.crop(sample(), where) for where in np.linspace(0, 0.9999, 200)]
    begins = {round(float(clip.short_term[0, 0, 0] - clip.short_term_times[0] - 4.0), 3) for clip in clips}
    assert begins == {k / 2 for k in range(11)}
    assert all(abs(clip.short_term_times[0] - 0.25) < 1e-9 for clip in clips)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_crops_begins_or_ends_with_the_sample(share: float) -> None:
    collator = CropCollator(made.KEPT, 3.0, edge_share=share)
    positions = [collator.crop_position(float(where)) for where in np.linspace(0, 1, 1000, endpoint=False)]
    assert positions == sorted(positions)
    assert np.mean([position == 0.0 for position in positions]) == pytest.approx(share / 2, abs=0.002)
    assert np.mean([position == 1.0 for position in positions]) == pytest.approx(share / 2, abs=0.002)
    between = [position for position in positions if 0.0 < position < 1.0]
    assert share == 1.0 or (min(between) < 0.01 and max(between) > 0.99), "the others lie anywhere"
    first, last = (collator.crop(sample(), position).short_term[:, 0, 0] for position in (0.0, 1.0))
    assert (first == sample().frames[:6, 0, 0]).all()
    assert (last == sample().frames[-6:, 0, 0]).all()


def test_collate_pads_clips_and_masks_the_padding() -> None:
    collator = CropCollator(made.KEPT, 6.0)
    clips = [collator.crop(sample(1, 8.0), 0.5), collator.crop(sample(3, 2.5), 0.5), collator.empty_clip()]
    batch = collator.collate(clips, num_skipped=1)
    assert batch.codes.shape == (3, 4, 300)
    assert batch.codes.dtype == torch.int64
    assert batch.lengths.tolist() == [300, 125, 0]
    assert not batch.codes[1, :, 125:].any()
    assert batch.visual.short_term.shape == (3, 12, 5, 24)
    assert batch.visual.short_term_mask.sum(1).tolist() == [12, 5, 0]
    assert batch.visual.long_term_mask.sum(1).tolist() == [6, 6, 0]
    assert batch.visual.event_mask.sum(1).tolist() == [120, 50, 0]
    assert batch.text.mask.sum(1).tolist() == [3, 0, 0]
    assert batch.keys == ["sample0001", "sample0003", ""]
    assert batch.to("cpu").num_skipped == 1
