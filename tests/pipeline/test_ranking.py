"""Candidates in order: of the tags that were asked for first, then of the sync score."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from v2m.core import errors
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio, Soundtrack, Tags
from v2m.media import video
from v2m.pipeline.ranking import rank_candidates
from v2m.pipeline.score import score_video

needs_networks = pytest.mark.skipif(
    importlib.util.find_spec("musicnn") is None, reason="the published weights come with the dependency group musicnn"
)


@needs_networks
def test_candidate_with_the_asked_instrument_comes_first(media: Path) -> None:
    """A quiet sawtooth is strings to a network, and only at the loudness of other music."""
    clip, asked = video.open(media / "cuts.mp4"), Tags(instruments=["string ensemble"])
    time = np.arange(round(clip.duration * 48_000)) / 48_000
    noise = np.random.default_rng(0).normal(size=len(time)) * 0.1
    saw, hum = 0.001 * ((110 * time) % 1 - 0.5), 0.1 * np.sin(2 * np.pi * 55 * time)
    audios = [Audio(np.tile(mono, (2, 1)).astype(np.float32), 48_000) for mono in (noise, saw, hum)]
    soundtracks = [Soundtrack(audio) for audio in audios]
    ranked = rank_candidates((5, 6, 7), soundtracks, clip, asked, "tags")
    assert (ranked[0].seed, ranked[0].tag_recall) == (6, 1.0)
    assert [candidate.tag_recall for candidate in ranked[1:]] == [0.0, 0.0]
    assert (ranked[1].sync["total"] or 0) >= (ranked[2].sync["total"] or 0)
    by_sync = rank_candidates((5, 6, 7), soundtracks, clip, asked, "sync")
    totals = [candidate.sync["total"] or 0 for candidate in by_sync]
    assert totals == sorted(totals, reverse=True)
    assert {candidate.tag_recall for candidate in by_sync} == {None}


@needs_networks
def test_sidecar_has_the_recall_and_the_choice(media: Path, tmp_path: Path) -> None:
    out, tags = tmp_path / "out.mp4", Tags(genres=["ambient"], instruments=["piano"])
    record = score_video(media / "cuts.mp4", out, tags=tags, candidates=2, rank_by="tags").to_dict()
    recalls = [candidate["tag_recall"] for candidate in record["candidates"]]
    assert recalls == sorted(recalls, reverse=True)
    assert all(recall in {0.0, 0.5, 1.0} for recall in recalls)
    assert record["settings"]["rank_by"] == "tags"


def test_missing_networks_and_other_orders_are_refused_before_any_work(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "musicnn" else find_spec(name))
    monkeypatch.chdir(tmp_path)
    clip = media / "cuts.mp4"
    with pytest.raises(DependencyError) as caught:
        score_video(clip, tmp_path / "out.mp4", candidates=2, rank_by="tags")
    assert errors.INSTALL_MUSICNN in str(caught.value)
    with pytest.raises(UsageError, match="rank_by 'loudness' is not sync or tags"):
        score_video(clip, tmp_path / "out.mp4", candidates=2, rank_by="loudness")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
