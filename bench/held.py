"""Cross entropy of held-out clips, each by itself, with whatever video and words they are given.

N clips, B of them at a time, K codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v2m.data.collate import Batch, CropCollator
from v2m.data.samples import decode
from v2m.data.shards import ShardReader
from v2m.models import losses
from v2m.models.conditioning import Condition
from v2m.models.music_model import MusicModel
from v2m.models.visual.inputs import Seen

AT_ONCE = 16


def windows(folder: Path, seconds: float, places: Sequence[float]) -> list[Batch]:
    """All N clips of prepared shards side by side, once for each of `places` (0–1) that their crops begin at."""
    shards = ShardReader(folder)
    cropper = CropCollator(shards.manifest, seconds)
    samples = [decode(shards.raw(number), shards.manifest) for number in range(len(shards))]
    return [cropper.batch([cropper.crop(sample, place) for sample in samples]) for place in places]


def given(seen: Seen, rows: np.ndarray) -> Seen:
    """Each clip's video is that of the clip that `rows` (N,) names."""
    return Seen(*(each[torch.from_numpy(rows)] for each in seen))


def told(text: Condition, rows: np.ndarray) -> Condition:
    """Likewise the words."""
    return text.picked(torch.from_numpy(rows))


def beating(seen: Seen, rows: np.ndarray) -> Seen:
    """Likewise the rhythm alone."""
    other = given(seen, rows)
    return seen._replace(rhythm=other.rhythm, rhythm_times=other.rhythm_times, rhythm_mask=other.rhythm_mask)


def late(seen: Seen, seconds: float) -> Seen:
    """The same video, of which everything in the window is said to come later."""
    return seen._replace(near_times=seen.near_times + seconds, rhythm_times=seen.rhythm_times + seconds)


@torch.inference_mode()
def entropies(model: MusicModel, batch: Batch, seen: Seen | None, text: Condition | None) -> np.ndarray:
    """(N, K) nats a code of each clip's music; what is None is not there, and the learned null stands for it."""
    found = []
    for begin in range(0, len(batch.codes), AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        codes, lengths = batch.codes[rows], batch.lengths[rows]
        nothing = torch.ones(len(codes), dtype=torch.bool)
        condition = model.condition(
            (text or batch.text).picked(rows),
            Seen(*(each[rows] for each in seen or batch.seen)),
            nothing if text is None else None,
            nothing if seen is None else None,
        )
        found.append(_each(model, codes, lengths, condition))
    return torch.cat(found).numpy()


def _each(model: MusicModel, codes: Tensor, lengths: Tensor, condition: Condition | None) -> Tensor:
    lm = model.config.lm
    logits = model.lm(losses.inputs(codes, lengths, lm.pattern, lm.special), condition)
    rows = (slice(n, n + 1) for n in range(len(codes)))
    return torch.stack([losses.loss(logits[n], codes[n], lengths[n], lm.pattern).codebooks for n in rows])
