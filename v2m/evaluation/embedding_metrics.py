"""Metrics of pretrained models: FAD, density, coverage, KL, CLAP score, tag recall, and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from v2m.core.engine import Engine, SerialEngine, map_in_order
from v2m.core.errors import UsageError
from v2m.core.types import Audio, Floats, Tags, Video
from v2m.evaluation import distances
from v2m.evaluation.distances import NUM_NEIGHBORS, cosine_similarity, derangements
from v2m.evaluation.embedders import BaseEmbedder, Embedder, adapt
from v2m.evaluation.tables import GROUND_TRUTH, SHUFFLED, Baselines, SetMetric
from v2m.evaluation.tag_recall import NUM_TOP_TAGS, tag_recall

# A line of the table stands under such a name, "@" and the embedder's. All but fad are means over clips.
EMBEDDING_METRICS = {
    "fad": "Fréchet distance of the windows of all clips to those of the ground truth; the interval is a bootstrap's "
    "over clips, with its bias taken off: of few windows the value is too high, and may lie above it",
    "density": f"how many neighborhoods of ground-truth pieces a piece lies in, over {NUM_NEIGHBORS} (Naeem et al., "
    "2020); a piece is the mean of its windows",
    "coverage": "share of ground-truth pieces with one of the music's in their neighborhood, 0–1",
    "kl": "divergence of the class probabilities, KL(ground truth ‖ music), softmax, in nats",
    "kl_reverse": "the other way round, KL(music ‖ ground truth)",
    "clap_score": "cosine similarity of the music and its tags, −1 to 1",
    "tag_recall": "share of the genres and instruments of the tags that a tagger of music gives it, 0–1: a tag that "
    f"stands for them is among its {NUM_TOP_TAGS} most probable",
    "av_similarity": "cosine similarity of the music and its video, −1 to 1; hardly sensitive to their timing",
}
BASELINE_COLUMNS = {
    GROUND_TRUTH: "the ground truth in the music's place; of fad, density and coverage one half of its clips against "
    "the other, of kl the halves of each piece",
    SHUFFLED: "the music of other clips in the place of each; fad, density and coverage do not depend on whose it is",
}
MAX_SHUFFLES = 4  # other clips whose music each clip is given
Rows = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class EvalClip:
    """A clip with its music, both read when they are embedded; `text` is its `tags` in words, or ""."""

    audio: Callable[[], Audio]
    video: Callable[[], Video] | None = None
    text: str = ""
    tags: Tags | None = None


@dataclass
class EmbeddingResults:
    """Rows of each system's clips by `metric@embedder`, and the baselines beside them."""

    rows: dict[str, Rows] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=Baselines)


@dataclass(frozen=True)
class _ClipEmbedding:
    """A piece's `embeddings` (windows W, dimensions D), `class_probs` (W, classes) and `tag_probs`."""

    embeddings: Floats
    class_probs: Floats | None
    tag_probs: Mapping[str, float] | None

    @property
    def direction(self) -> Floats:
        return _mean_direction(self.embeddings)


_Clips = Mapping[str, _ClipEmbedding]  # by name of the clip


def evaluate_embeddings(
    embedders: Sequence[Embedder],
    systems: Mapping[str, Mapping[str, EvalClip]],
    ground_truth: Mapping[str, EvalClip] | None = None,
    *,
    seed: int = 0,
    on_progress: Callable[[], object] = lambda: None,
    engine: Engine | None = None,
) -> EmbeddingResults:
    """Compute all metrics that `embedders` allow, of systems with the same clips and their ground truth.

    Embedders are loaded one after the other. `seed` decides the shuffles, the halves of the ground truth and the draws
    of the bootstrap. `on_progress` is called after each piece of music and each video. `engine` embeds both in other
    processes, whose machines share the files; texts are embedded in this one. Raises UsageError for embeddings that are
    not finite.
    """
    results = EmbeddingResults()
    clips = next(iter(systems.values()))  # whose names, texts and videos all systems share
    for embedder in map(adapt, embedders):
        sets: dict[str | None, Mapping[str, EvalClip]] = {**systems}
        if ground_truth is not None:
            sets[None] = {name: ground_truth[name] for name in clips}
        embedded, videos = _embed_clips(embedder, sets, clips, on_progress, engine or SerialEngine())
        reference = embedded.pop(None, None)
        music = {name: embedded[name] for name in systems}
        texts = _embed_texts(embedder, clips)
        tags = {name: clip.tags for name, clip in clips.items() if clip.tags is not None}
        _Evaluator(embedder.name, list(clips), music, reference, texts, videos, tags, seed).add_to(results)
        embedder.release()
    return results


def _embed_clips(
    embedder: BaseEmbedder,
    sets: Mapping[str | None, Mapping[str, EvalClip]],
    clips: Mapping[str, EvalClip],
    on_progress: Callable[[], object],
    engine: Engine,
) -> tuple[dict[str | None, dict[str, _ClipEmbedding]], dict[str, Floats]]:
    """Return the music of each set by name, and the videos (D,) of `clips` where the embedder takes them."""
    music = [(system, name) for system, pieces in sets.items() for name in pieces]
    videos = [name for name, clip in clips.items() if clip.video is not None] if embedder.embeds_video else []
    jobs = [(_embed_audio, name, sets[system][name]) for system, name in music]
    jobs += [(_embed_video, name, clips[name]) for name in videos]
    values = map_in_order(engine, partial(_load_embedder, embedder), jobs, on_progress)
    embedded: dict[str | None, dict[str, _ClipEmbedding]] = {system: {} for system in sets}
    for (system, name), value in zip(music, values, strict=False):
        embedded[system][name] = value
    return embedded, dict(zip(videos, values[len(music) :], strict=True))


def _load_embedder(embedder: BaseEmbedder) -> Callable[[tuple[Callable[..., Any], str, EvalClip]], Any]:
    """Return the function that embeds one clip; the embedder loads its model with the first."""
    return lambda job: job[0](embedder, *job[1:])


def _embed_audio(embedder: BaseEmbedder, name: str, clip: EvalClip) -> _ClipEmbedding:
    output = embedder.embed_audio(clip.audio())
    embeddings, class_probs = _to_float64(output.embeddings), _to_float64(output.class_probs)
    if embeddings is None or embeddings.ndim != 2 or not embeddings.size or not np.isfinite(embeddings).all():
        shape = None if embeddings is None else embeddings.shape
        raise UsageError(f"{embedder.name} gave {shape} for {name}: finite (windows, dimensions) are needed")
    return _ClipEmbedding(embeddings, class_probs, getattr(output, "tag_probs", None))


def _embed_video(embedder: BaseEmbedder, name: str, clip: EvalClip) -> Floats:
    assert clip.video is not None, f"{name} has no video"
    return _mean_direction(embedder.embed_video(clip.video()))


def _embed_texts(embedder: BaseEmbedder, clips: Mapping[str, EvalClip]) -> dict[str, Floats]:
    texts = {name: clip.text for name, clip in clips.items() if clip.text}
    if not texts or not embedder.embeds_text:
        return {}
    return dict(zip(texts, np.asarray(embedder.embed_text(list(texts.values()))), strict=True))


@dataclass(frozen=True)
class _Evaluator:
    """Metrics of one embedder's music by system, ground truth, texts and videos (D,) and tags by clip."""

    name: str
    clips: list[str]
    systems: Mapping[str, _Clips]
    ground_truth: _Clips | None
    texts: Mapping[str, Floats]
    videos: Mapping[str, Floats]
    tags: Mapping[str, Tags]
    seed: int

    def add_to(self, results: EmbeddingResults) -> None:
        baselines = results.baselines
        if self.ground_truth is not None:
            _merge(baselines.ground_truth, self._ground_truth_rows(self.ground_truth))
            self._add_set_metrics(self.ground_truth, baselines)
        for name, music in self.systems.items():
            _merge(results.rows.setdefault(name, {}), self._rows(music))
            _merge(baselines.shuffled.setdefault(name, {}), self._shuffled_rows(music))

    def _pair_metrics(
        self, clip: str, music: _ClipEmbedding, reference: _ClipEmbedding | None
    ) -> Iterator[tuple[str, float]]:
        """Yield the name and value of each metric of a clip with the given music."""
        if reference is not None and reference.class_probs is not None and music.class_probs is not None:
            yield from _kl_both_ways(reference.class_probs, music.class_probs)
        if clip in self.texts:
            yield "clap_score", cosine_similarity(music.direction, self.texts[clip])
        if clip in self.videos:
            yield "av_similarity", cosine_similarity(music.direction, self.videos[clip])
        if clip in self.tags and music.tag_probs is not None:
            recall = tag_recall(self.tags[clip], [music.tag_probs])
            if recall is not None:
                yield "tag_recall", recall

    def _rows(self, music: _Clips) -> Rows:
        references = self.ground_truth or {}
        rows = {clip: dict(self._pair_metrics(clip, music[clip], references.get(clip))) for clip in self.clips}
        if self.ground_truth is not None and len(self.clips) > NUM_NEIGHBORS:
            _add_density_and_coverage(rows, self.ground_truth, self.clips, music, self.clips)
        return self._with_suffix(rows)

    def _ground_truth_rows(self, ground_truth: _Clips) -> Rows:
        """Rows of the ground truth: KL between halves of each piece, the others between halves of clips."""
        rows: dict[str, dict[str, float]] = {}
        for clip, piece in ground_truth.items():
            rows[clip] = dict(self._pair_metrics(clip, piece, None))
            middle = len(piece.embeddings) // 2
            if piece.class_probs is not None and middle:
                rows[clip] |= _kl_both_ways(piece.class_probs[:middle], piece.class_probs[middle:])
        first_half, second_half = self._halves()
        if len(first_half) > NUM_NEIGHBORS and second_half:
            _add_density_and_coverage(rows, ground_truth, first_half, ground_truth, second_half)
        return self._with_suffix(rows)

    def _shuffled_rows(self, music: _Clips) -> Rows:
        """Each clip's metrics with the music of other clips, averaged over these."""
        num_shuffles = min(MAX_SHUFFLES, len(self.clips) - 1)
        if not num_shuffles:
            return {}
        shuffles = derangements(len(self.clips), num_shuffles, self.seed)
        rows = {}
        for column, clip in enumerate(self.clips):
            others = [self.clips[index] for index in shuffles[:, column]]
            reference = (self.ground_truth or {}).get(clip)
            values = [dict(self._pair_metrics(clip, music[other], reference)) for other in others]
            rows[clip] = {name: float(np.mean([value[name] for value in values])) for name in values[0]}
        return self._with_suffix(rows)

    def _add_set_metrics(self, ground_truth: _Clips, baselines: Baselines) -> None:
        """Add Fréchet distances of systems and of halves of the ground truth, and notes on omissions."""
        metric = f"fad@{self.name}"
        if len(self.clips) <= NUM_NEIGHBORS:
            needed = f"they need {NUM_NEIGHBORS + 1} clips or more"
            baselines.notes.append(f"density@{self.name} and coverage are left out: {needed}")
        if len(self.clips) < 2:
            baselines.notes.append(f"{metric} is left out: a Fréchet distance needs two clips or more")
            return
        dim = ground_truth[self.clips[0]].embeddings.shape[1]
        sets = (ground_truth, *self.systems.values())
        num_windows = min(sum(len(pieces[clip].embeddings) for clip in self.clips) for pieces in sets)
        if num_windows <= dim:
            baselines.notes.append(
                f"{metric} is too high: {num_windows} windows cannot tell how {dim} numbers vary; compare systems by "
                "it on the same clips alone, or take more clips"
            )
        reference = [ground_truth[clip].embeddings for clip in self.clips]
        for system, music in self.systems.items():
            generated = [music[clip].embeddings for clip in self.clips]
            distance = self._frechet_distance(reference, generated, paired=True)
            baselines.set_metrics.setdefault(system, {})[metric] = distance
        first_half, second_half = ([ground_truth[clip].embeddings for clip in half] for half in self._halves())
        if len(second_half) > 1:
            baselines.ground_truth_set[metric] = self._frechet_distance(first_half, second_half, paired=False)

    def _frechet_distance(self, a: Sequence[Floats], b: Sequence[Floats], *, paired: bool) -> SetMetric:
        value = distances.frechet_distance(np.concatenate(a), np.concatenate(b))
        draws = distances.bootstrap_frechet(a, b, seed=self.seed, paired=paired)
        low, high = distances.basic_bootstrap_ci(value, draws)
        return SetMetric(len(b), value, max(0.0, low), max(0.0, high), draws)

    def _halves(self) -> tuple[list[str], list[str]]:
        shuffled = [self.clips[index] for index in np.random.default_rng(self.seed).permutation(len(self.clips))]
        middle = (len(shuffled) + 1) // 2
        return shuffled[:middle], shuffled[middle:]

    def _with_suffix(self, rows: Mapping[str, Mapping[str, float]]) -> Rows:
        return {clip: {f"{name}@{self.name}": value for name, value in row.items()} for clip, row in rows.items()}


def _add_density_and_coverage(
    rows: dict[str, dict[str, float]], real: _Clips, real_clips: Sequence[str], generated: _Clips, clips: Sequence[str]
) -> None:
    """Add density to the rows of the generated `clips`, coverage to those of the real ones."""
    real_means = np.stack([real[clip].embeddings.mean(axis=0) for clip in real_clips])
    generated_means = np.stack([generated[clip].embeddings.mean(axis=0) for clip in clips])
    for clip, value in zip(clips, distances.density(real_means, generated_means), strict=True):
        rows[clip]["density"] = float(value)
    for clip, value in zip(real_clips, distances.coverage(real_means, generated_means), strict=True):
        rows[clip]["coverage"] = float(value)


def _kl_both_ways(reference: Floats, music: Floats) -> Iterator[tuple[str, float]]:
    """Yield the divergence of the mean class probabilities of two sets of windows, in both directions."""
    p, q = reference.mean(axis=0), music.mean(axis=0)
    yield "kl", distances.kl_divergence(p, q)
    yield "kl_reverse", distances.kl_divergence(q, p)


def _to_float64(values: Any) -> Floats | None:
    return None if values is None else np.asarray(values, np.float64)


def _mean_direction(embeddings: Floats) -> Floats:
    """(D,) the mean of the windows' directions."""
    embeddings = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(lengths > 0, lengths, 1.0)).mean(axis=0)


def _merge(target: Any, rows: Rows) -> None:
    for clip, row in rows.items():
        target.setdefault(clip, {}).update(row)
