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
from v2m.models.visual.inputs import VisualInputs

AT_ONCE = 16


def windows(folder: Path, seconds: float, places: Sequence[float]) -> list[Batch]:
    """All N clips of prepared shards side by side, once for each of `places` (0–1) that their crops begin at."""
    shards = ShardReader(folder)
    collator = CropCollator(shards.manifest, seconds)
    samples = [decode(shards.read_members(number), shards.manifest) for number in range(len(shards))]
    return [collator.collate([collator.crop(sample, place) for sample in samples]) for place in places]


def given(seen: VisualInputs, rows: np.ndarray) -> VisualInputs:
    """Each clip's video is that of the clip that `rows` (N,) names."""
    return VisualInputs(*(each[torch.from_numpy(rows)] for each in seen))


def told(text: Condition, rows: np.ndarray) -> Condition:
    """Likewise the words."""
    return text.select(torch.from_numpy(rows))


def beating(seen: VisualInputs, rows: np.ndarray) -> VisualInputs:
    """Likewise the rhythm alone."""
    other = given(seen, rows)
    return seen._replace(events=other.events, event_times=other.event_times, event_mask=other.event_mask)


def late(seen: VisualInputs, seconds: float) -> VisualInputs:
    """The same video, of which everything in the window is said to come later."""
    return seen._replace(short_term_times=seen.short_term_times + seconds, event_times=seen.event_times + seconds)


@torch.inference_mode()
def entropies(model: MusicModel, batch: Batch, seen: VisualInputs | None, text: Condition | None) -> np.ndarray:
    """(N, K) nats a code of each clip's music; what is None is not there, and the learned null stands for it."""
    found = []
    for begin in range(0, len(batch.codes), AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        codes, lengths = batch.codes[rows], batch.lengths[rows]
        nothing = torch.ones(len(codes), dtype=torch.bool)
        condition = model.build_condition(
            (text or batch.text).select(rows),
            VisualInputs(*(each[rows] for each in seen or batch.visual)),
            nothing if text is None else None,
            nothing if seen is None else None,
        )
        found.append(_each(model, codes, lengths, condition))
    return torch.cat(found).numpy()


def _each(model: MusicModel, codes: Tensor, lengths: Tensor, condition: Condition | None) -> Tensor:
    lm = model.config.lm
    logits = model.lm(losses.model_inputs(codes, lengths, lm.delay_pattern, lm.special_token_id), condition)
    rows = (slice(n, n + 1) for n in range(len(codes)))
    return torch.stack(
        [losses.codebook_cross_entropy(logits[n], codes[n], lengths[n], lm.delay_pattern).per_codebook for n in rows]
    )
