"""Measures that need a model that hears: how far music lies from the true music, from its tags and from its picture.

W windows of a piece, D numbers of an embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.types import Audio, Floats, Video
from v2m.evaluation import distances
from v2m.evaluation.bootstrap import derangements
from v2m.evaluation.distances import NUM_NEIGHBORS, cosine_similarity
from v2m.evaluation.embedder import Embedder, TextEmbedder, VideoEmbedder
from v2m.evaluation.tables import GROUND_TRUTH, SHUFFLED, Baselines, SetMetric

# What stands in a line, before the "@" and the embedding's name. All but fad are of a clip each.
EMBEDDING_METRICS = {
    "fad": "Fréchet distance of the windows of all clips to those of the truth; the interval is a bootstrap's over "
    "clips, with its bias taken off: of few windows the value is too high, and may lie above it",
    "density": f"how many spheres of the truth's pieces one lies in, over {NUM_NEIGHBORS} (Naeem et al., 2020); a piece "
    "is the mean of its windows",
    "coverage": "share of the truth's pieces with one of the music's among their neighbors, 0–1",
    "kl": "divergence of the classes heard in the truth from those in the music, KL(truth ‖ music), softmax, in nats",
    "kl_reverse": "the other way round, KL(music ‖ truth)",
    "clap_score": "cosine of the music and its tags, −1 to 1",
    "av_similarity": "cosine of the music and its picture, −1 to 1; hardly hears whether they meet in time",
}
BASELINE_COLUMNS = {
    GROUND_TRUTH: "the true music in the music's place; of fad, density and coverage one half of its clips against the other, "
    "of kl the halves of each piece",
    SHUFFLED: "the music of other clips in the place of each; fad, density and coverage do not ask whose music it is",
}
MAX_SHUFFLES = 4  # other clips whose music each is given
Rows = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class EvalClip:
    """A clip's music: what is read when it is heard; its picture; its tags in words, "" where there are none."""

    audio: Callable[[], Audio]
    video: Callable[[], Video] | None = None
    text: str = ""


@dataclass
class EmbeddingResults:
    """By `measure@embedding`: the rows of each system's clips, and what stands beside them."""

    rows: dict[str, Rows] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=Baselines)


@dataclass(frozen=True)
class _ClipEmbedding:
    """One piece: `windows` (W, D), their mean direction (D,), classes (W, K)."""

    embeddings: Floats
    class_probs: Floats | None

    @property
    def direction(self) -> Floats:
        return _direction(self.embeddings)

    @property
    def mean_class_probs(self) -> Floats:
        assert self.class_probs is not None
        return self.class_probs.mean(axis=0)


def evaluate_embeddings(
    embedders: Sequence[Embedder],
    systems: Mapping[str, Mapping[str, EvalClip]],
    ground_truth: Mapping[str, EvalClip] | None = None,
    *,
    seed: int = 0,
    on_progress: Callable[[], object] = lambda: None,
) -> EmbeddingResults:
    """All measures that `embeddings` can tell, of systems with the same clips, and of `truth` with those too.

    Embeddings are loaded one after the other. `seed` decides whose music is whose when it is shuffled, what the halves
    of the truth are and what the bootstrap draws. `told` is called after each piece.
    """
    found = EmbeddingResults()
    for each in embedders:
        _Evaluator(each, systems, ground_truth, seed, on_progress).into(found)
        if release := getattr(each, "release", None):
            release()
    return found


class _Evaluator:
    """By one embedding."""

    def __init__(
        self, embedding: Embedder, systems: Any, truth: Mapping[str, EvalClip] | None, seed: int, told: Any
    ) -> None:
        self.embedder, self.seed = embedding, seed
        first = next(iter(systems.values()))
        self.clips = list(first)
        heard = {name: self._heard(pieces, told) for name, pieces in systems.items()}
        self.ground_truth = None if truth is None else self._heard({clip: truth[clip] for clip in self.clips}, told)
        self.systems = heard
        self.texts, self.seen = self._read(first), self._seen(first)
        count = len(self.clips)
        rounds = min(MAX_SHUFFLES, count - 1)
        self.derangements = derangements(count, rounds, seed) if rounds else np.zeros((0, count), np.intp)

    def into(self, found: EmbeddingResults) -> None:
        if self.ground_truth is not None:
            _merge(found.baselines.ground_truth, self._truth_rows())
            self._whole(found.baselines)
        for name, known in self.systems.items():
            _merge(found.rows.setdefault(name, {}), self._rows(known))
            _merge(found.baselines.shuffled.setdefault(name, {}), self._shuffled(known))

    def _heard(self, pieces: Mapping[str, EvalClip], told: Any) -> dict[str, _ClipEmbedding]:
        found = {}
        for clip, piece in pieces.items():
            what = self.embedder.embed_audio(piece.audio())
            heard, classes = (None if x is None else np.asarray(x, np.float64) for x in (what.windows, what.classes))
            if heard is None or heard.ndim != 2 or not heard.size or not np.isfinite(heard).all():
                shape = None if heard is None else heard.shape
                raise UsageError(f"{self.embedder.name} heard {shape} in {clip}: (windows, numbers) are wanted, finite")
            found[clip] = _ClipEmbedding(heard, classes)
            told()
        return found

    def _read(self, pieces: Mapping[str, EvalClip]) -> dict[str, Floats]:
        said = {clip: piece.text for clip, piece in pieces.items() if piece.text}
        if not said or not isinstance(self.embedder, TextEmbedder):
            return {}
        return dict(zip(said, np.asarray(self.embedder.embed_text(list(said.values()))), strict=True))

    def _seen(self, pieces: Mapping[str, EvalClip]) -> dict[str, Floats]:
        if not isinstance(self.embedder, VideoEmbedder):
            return {}
        shown = {clip: piece.video for clip, piece in pieces.items() if piece.video is not None}
        return {clip: _direction(self.embedder.embed_video(video())) for clip, video in shown.items()}

    def _pair(self, clip: str, music: _ClipEmbedding, true: _ClipEmbedding | None) -> Iterator[tuple[str, float]]:
        """What can be said of a clip with some music."""
        if true is not None and true.class_probs is not None:
            yield "kl", distances.kl_divergence(true.mean_class_probs, music.mean_class_probs)
            yield "kl_reverse", distances.kl_divergence(music.mean_class_probs, true.mean_class_probs)
        if clip in self.texts:
            yield "clap_score", cosine_similarity(music.direction, self.texts[clip])
        if clip in self.seen:
            yield "av_similarity", cosine_similarity(music.direction, self.seen[clip])

    def _true(self, clip: str) -> _ClipEmbedding | None:
        return None if self.ground_truth is None else self.ground_truth[clip]

    def _rows(self, known: Mapping[str, _ClipEmbedding]) -> Rows:
        found: dict[str, dict[str, float]] = {}
        for clip in self.clips:
            found[clip] = dict(self._pair(clip, known[clip], self._true(clip)))
        if self.ground_truth is not None and len(self.clips) > NUM_NEIGHBORS:
            self._spread(found, self.clips, self.ground_truth, self.clips, known)
        return self._named(found)

    def _truth_rows(self) -> Rows:
        assert self.ground_truth is not None
        found: dict[str, dict[str, float]] = {}
        for clip, known in self.ground_truth.items():
            row = dict(self._pair(clip, known, None))
            half = len(known.embeddings) // 2
            if known.class_probs is not None and half:
                begin, end = known.class_probs[:half].mean(axis=0), known.class_probs[half:].mean(axis=0)
                row |= {"kl": distances.kl_divergence(begin, end), "kl_reverse": distances.kl_divergence(end, begin)}
            found[clip] = row
        one, other = self._halves()
        if len(one) > NUM_NEIGHBORS and other:
            self._spread(found, one, self.ground_truth, other, self.ground_truth)
        return self._named(found)

    def _spread(self, found: Any, real_clips: Sequence[str], real: Any, made_clips: Sequence[str], made: Any) -> None:
        """Adds density to the rows of what is made, coverage to those of what is real."""
        a, b = (
            np.stack([known[clip].windows.mean(axis=0) for clip in clips])
            for clips, known in ((real_clips, real), (made_clips, made))
        )
        for clip, value in zip(made_clips, distances.density(a, b), strict=True):
            found[clip]["density"] = float(value)
        for clip, value in zip(real_clips, distances.coverage(a, b), strict=True):
            found[clip]["coverage"] = float(value)

    def _shuffled(self, known: Mapping[str, _ClipEmbedding]) -> Rows:
        """Means over the rounds."""
        if not len(self.derangements):
            return {}
        found = {}
        for k, clip in enumerate(self.clips):
            rounds = [
                dict(self._pair(clip, known[self.clips[other]], self._true(clip))) for other in self.derangements[:, k]
            ]
            found[clip] = {name: float(np.mean([each[name] for each in rounds])) for name in rounds[0]}
        return self._named(found)

    def _whole(self, found: Baselines) -> None:
        assert self.ground_truth is not None
        name, true = self.embedder.name, [self.ground_truth[clip].embeddings for clip in self.clips]
        key, width = f"fad@{name}", true[0].shape[1]
        if len(self.clips) <= NUM_NEIGHBORS:
            found.notes.append(f"density@{name} and coverage are left out: they need {NUM_NEIGHBORS + 1} clips or more")
        if len(self.clips) < 2:
            found.notes.append(f"{key} is left out: a Fréchet distance needs two clips or more")
            return
        every = (self.ground_truth, *self.systems.values())
        count = min(sum(len(known[clip].embeddings) for clip in self.clips) for known in every)
        if count <= width:
            found.notes.append(
                f"{key} is too high: {count} windows cannot tell how {width} numbers vary; compare systems by it on "
                "the same clips alone, or take more clips"
            )
        for system, known in self.systems.items():
            made = [known[clip].embeddings for clip in self.clips]
            found.set_metrics.setdefault(system, {})[key] = self._frechet(true, made, paired=True)
        one, other = ([self.ground_truth[clip].embeddings for clip in half] for half in self._halves())
        if len(other) > 1:
            found.ground_truth_set[key] = self._frechet(one, other, paired=False)

    def _frechet(self, a: Sequence[Floats], b: Sequence[Floats], *, paired: bool) -> SetMetric:
        value = distances.frechet_distance(np.concatenate(a), np.concatenate(b))
        draws = distances.bootstrap_frechet(a, b, seed=self.seed, paired=paired)
        low, high = distances.basic_bootstrap_ci(value, draws)
        return SetMetric(len(b), value, max(0.0, low), max(0.0, high), draws)

    def _halves(self) -> tuple[list[str], list[str]]:
        mixed = [self.clips[k] for k in np.random.default_rng(self.seed).permutation(len(self.clips))]
        middle = (len(mixed) + 1) // 2
        return mixed[:middle], mixed[middle:]

    def _named(self, found: Mapping[str, Mapping[str, float]]) -> Rows:
        return {
            clip: {f"{name}@{self.embedder.name}": value for name, value in row.items()} for clip, row in found.items()
        }


def _direction(windows: Floats) -> Floats:
    """(D,) the mean of the windows' directions."""
    windows = np.asarray(windows, np.float64)
    lengths = np.linalg.norm(windows, axis=1, keepdims=True)
    return (windows / np.where(lengths > 0, lengths, 1.0)).mean(axis=0)


def _merge(into: Any, rows: Rows) -> None:
    for clip, row in rows.items():
        into.setdefault(clip, {}).update(row)
