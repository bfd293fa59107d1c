"""Order of candidates: by the sync score, or first by the recall of the tags that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain
from v2m.core.types import Audio, Soundtrack, Tags, Video
from v2m.pipeline.result import Candidate

if TYPE_CHECKING:
    from v2m.evaluation.embedders.musicnn import MusicnnEmbedder

RankBy: TypeAlias = Literal["sync", "tags"]
LOUDNESS = -14.0  # LUFS at which candidates are tagged: the tags depend on it


def prepare_ranking(rank_by: RankBy, num_candidates: int) -> None:
    """Raise UsageError for another order, DependencyError where the networks that it needs are missing."""
    if rank_by not in {"sync", "tags"}:
        raise UsageError(f"rank_by {rank_by!r} is not sync or tags")
    if rank_by == "tags" and num_candidates > 1:
        for network in _taggers():
            network.prepare()


def rank_candidates(
    seeds: Sequence[int], soundtracks: Sequence[Soundtrack], section: Video, tags: Tags, rank_by: RankBy
) -> list[Candidate]:
    """Return the candidates, the best first; a single one is not measured.

    "sync" orders by the sync score, "tags" by the tag recall of `tags` (`v2m.evaluation.tag_recall`) in musicnn's two
    networks, and candidates of the same recall by the sync score.
    """
    from v2m.analysis.synchrony import sync_score

    if len(seeds) == 1:
        return [Candidate(seeds[0], soundtracks[0])]
    audios = [soundtrack.audio for soundtrack in soundtracks]
    sync = [sync_score(audio, section.visual_features()).to_dict() for audio in audios]
    recalls = _tag_recalls(audios, tags) if rank_by == "tags" else [None] * len(audios)
    candidates = [Candidate(*fields) for fields in zip(seeds, soundtracks, sync, recalls, strict=True)]
    return sorted(candidates, key=lambda each: (-(each.tag_recall or 0.0), -(each.sync.get("total") or 0.0)))


def _tag_recalls(audios: Sequence[Audio], tags: Tags) -> list[float | None]:
    from v2m.evaluation.tag_recall import tag_recall

    networks = _taggers()
    louder = [_at_loudness(audio) for audio in audios]
    return [tag_recall(tags, [network.top_tags(audio, len(network.tags)) for network in networks]) for audio in louder]


def _taggers() -> list[MusicnnEmbedder]:
    from v2m.evaluation.embedders.musicnn import TAGS, MusicnnEmbedder

    return [MusicnnEmbedder(name) for name in TAGS]


def _at_loudness(audio: Audio) -> Audio:
    from v2m.analysis.loudness import integrated_loudness

    loudness = integrated_loudness(audio)
    if not np.isfinite(loudness):
        return audio
    return Audio(audio.samples * np.float32(db_to_gain(LOUDNESS - loudness)), audio.sample_rate)
