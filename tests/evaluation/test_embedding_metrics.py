"""Embedding metrics with an embedder of known output."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from v2m.core.errors import UsageError
from v2m.core.types import Audio, Floats, Tags, Video
from v2m.evaluation import distances, tables
from v2m.evaluation.distances import derangements
from v2m.evaluation.embedders import AudioEmbedding
from v2m.evaluation.embedding_metrics import EmbeddingResults, EvalClip, evaluate_embeddings

RATE = 100


class PlainEmbedder:
    """An embedder that returns windows of four samples, and the numbers (D = 4) that texts and videos consist of."""

    name = "plain"

    def __init__(self) -> None:
        self.released = 0

    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        found = audio.samples[0].reshape(-1, 4).astype(np.float64)
        rates = np.exp(found)
        return AudioEmbedding(found, rates / rates.sum(axis=1, keepdims=True))

    def embed_text(self, texts: Sequence[str]) -> Floats:
        return np.array([[float(word) for word in text.split()] for text in texts])

    def embed_video(self, video: Video) -> Floats:
        return np.array(video)  # what is given as a video here

    def release(self) -> None:
        self.released += 1


def sound(windows: Floats) -> Audio:
    return Audio(windows.reshape(1, -1).astype(np.float32), RATE)


def eval_clips(
    windows: Iterable[Floats], texts: Sequence[str] = (), seen: Sequence[Floats] = ()
) -> dict[str, EvalClip]:
    return {
        f"clip{k}": EvalClip(
            lambda each=each: sound(each),
            (lambda k=k: seen[k]) if len(seen) else None,  # type: ignore[return-value, arg-type]
            texts[k] if texts else "",
        )
        for k, each in enumerate(windows)
    }


@pytest.fixture(scope="module")
def heard() -> tuple[list[Floats], list[Floats], list[str], EmbeddingResults]:
    """Twelve clips of three windows: ground truth, near and far music; texts and videos are the truth's centers."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(12, 1, 4)) * 3
    true = [center + rng.normal(size=(3, 4)) * 0.2 for center in centers]
    made = [each + rng.normal(size=(3, 4)) * 0.3 for each in true]
    far = [each + 4.0 for each in true]
    true, made, far = ([np.float32(x).astype(float) for x in each] for each in (true, made, far))
    texts = [" ".join(map(str, center[0])) for center in centers]
    model = PlainEmbedder()
    systems = {"near": eval_clips(made, texts, list(centers)), "far": eval_clips(far, texts, list(centers))}
    found = evaluate_embeddings([model], systems, eval_clips(true))
    assert model.released == 1
    return true, made, texts, found


def test_values_match_the_distance_functions(
    heard: tuple[list[Floats], list[Floats], list[str], EmbeddingResults],
) -> None:
    true, made, texts, found = heard
    whole = found.baselines.set_metrics["near"]["fad@plain"]
    assert whole.value == pytest.approx(distances.frechet_distance(np.concatenate(true), np.concatenate(made)))
    assert whole.n == 12
    assert whole.low <= whole.high
    row = found.rows["near"]["clip3"]
    softmax = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (true[3], made[3])]
    p, q = (each.mean(axis=0) for each in softmax)
    assert row["kl@plain"] == pytest.approx(distances.kl_divergence(p, q))
    assert row["kl_reverse@plain"] == pytest.approx(distances.kl_divergence(q, p))
    direction = (made[3] / np.linalg.norm(made[3], axis=1, keepdims=True)).mean(axis=0)
    tags = np.array([float(word) for word in texts[3].split()])
    assert row["clap_score@plain"] == pytest.approx(distances.cosine_similarity(direction, tags))
    assert row["av_similarity@plain"] == pytest.approx(row["clap_score@plain"])
    assert set(row) == {
        f"{n}@plain" for n in ("kl", "kl_reverse", "clap_score", "av_similarity", "density", "coverage")
    }


def test_near_music_scores_better_than_far_and_shuffled(
    heard: tuple[list[Floats], list[Floats], list[str], EmbeddingResults],
) -> None:
    found = heard[3]
    beside, near, far = found.baselines, tables.column_means(found.rows["near"]), tables.column_means(found.rows["far"])
    shuffled = tables.column_means(beside.shuffled["near"])
    assert beside.set_metrics["near"]["fad@plain"].value < 1 < beside.set_metrics["far"]["fad@plain"].value
    assert near["coverage@plain"].value > far["coverage@plain"].value
    assert near["density@plain"].value > far["density@plain"].value
    for name in ("clap_score@plain", "av_similarity@plain"):
        assert near[name].value > 0.9
        assert near[name].value > shuffled[name].high
    assert near["kl@plain"].value < shuffled["kl@plain"].low
    assert not {"density@plain", "coverage@plain", "fad@plain"} & set(shuffled)


def test_shuffled_rows_average_over_other_clips(
    heard: tuple[list[Floats], list[Floats], list[str], EmbeddingResults],
) -> None:
    """The mean over the other clips whose music each clip is given, computed by hand."""
    _, made, texts, found = heard
    places = [(m / np.linalg.norm(m, axis=1, keepdims=True)).mean(axis=0) for m in made]
    chosen = derangements(12, 4, 0)
    for k in range(12):
        tags = np.array([float(word) for word in texts[k].split()])
        expected = np.mean([distances.cosine_similarity(places[j], tags) for j in chosen[:, k]])
        assert found.baselines.shuffled["near"][f"clip{k}"]["clap_score@plain"] == pytest.approx(expected)


def test_ground_truth_is_compared_with_itself(
    heard: tuple[list[Floats], list[Floats], list[str], EmbeddingResults],
) -> None:
    true, _, _, found = heard
    truth = tables.column_means(found.baselines.ground_truth)
    assert truth["clap_score@plain"].value > 0.98
    assert truth["clap_score@plain"].n == 12
    assert (truth["density@plain"].n, truth["coverage@plain"].n) == (6, 6)  # a half each
    softmax = np.exp(true[0]) / np.exp(true[0]).sum(axis=1, keepdims=True)
    expected = distances.kl_divergence(softmax[0], softmax[1:].mean(axis=0))
    assert found.baselines.ground_truth["clip0"]["kl@plain"] == pytest.approx(expected)
    assert found.baselines.ground_truth_set["fad@plain"].n == 6


def test_table_has_embedding_and_baseline_columns(
    heard: tuple[list[Floats], list[Floats], list[str], EmbeddingResults],
) -> None:
    found = heard[3]
    lines = [
        [c.strip() for c in line.split("|")[1:-1]]
        for line in tables.comparison_markdown(found.rows, found.baselines).splitlines()
    ]
    head = ["measure", "embedding", "near", "far", "far − near", "ground truth", "shuffled near", "shuffled far", "n"]
    assert lines[0] == head
    by = {line[0]: dict(zip(head, line, strict=True)) for line in lines[2:]}
    assert by["fad"]["embedding"] == "plain"
    assert by["fad"]["shuffled near"] == "–"
    assert by["fad"]["n"] == "12"
    value, low, high = (
        float(x) for x in by["fad"]["far − near"].replace("[", "").replace("]", "").replace(",", "").split()
    )
    assert low <= value <= high
    assert value == pytest.approx(
        found.baselines.set_metrics["far"]["fad@plain"].value - found.baselines.set_metrics["near"]["fad@plain"].value,
        rel=0.01,
    )
    assert all(cell != "–" for cell in by["kl"].values())
    single = tables.to_markdown(found.rows["near"], found.baselines).splitlines()
    assert single[0].endswith("| clip9 | clip10 | clip11 | mean [95 %] | ground truth | shuffled | n |")


def test_summary_and_clip_values_are_unrounded(
    heard: tuple[list[Floats], list[Floats], list[str], EmbeddingResults],
) -> None:
    found = heard[3]
    rows = list(csv.DictReader(io.StringIO(tables.summary_csv(found.rows, found.baselines))))
    assert list(rows[0]) == tables.SUMMARY_HEADER
    [row] = [row for row in rows if (row["measure"], row["system"]) == ("fad", "near")]
    whole = found.baselines.set_metrics["near"]["fad@plain"]
    assert (row["embedding"], row["n"]) == ("plain", "12")
    assert [float(row[name]) for name in ("value", "low", "high")] == [whole.value, whole.low, whole.high]
    assert {row["system"] for row in rows if row["measure"] == "kl"} == {
        *("near", "far", "far − near", "ground truth", "shuffled near", "shuffled far")
    }
    clips = list(csv.DictReader(io.StringIO(tables.to_csv(found.rows, found.baselines))))
    assert len(clips) == 12 * 5
    assert float(clips[3]["kl@plain"]) == found.rows["near"]["clip3"]["kl@plain"]


def test_few_clips_give_notes_and_omit_set_metrics() -> None:
    rng = np.random.default_rng(2)
    one = evaluate_embeddings(
        [PlainEmbedder()], {"": eval_clips([rng.normal(size=(3, 4))])}, eval_clips([rng.normal(size=(3, 4))])
    )
    assert one.baselines.notes == [
        "density@plain and coverage are left out: they need 6 clips or more",
        "fad@plain is left out: a Fréchet distance needs two clips or more",
    ]
    assert one.baselines.set_metrics == {}
    assert set(one.rows[""]["clip0"]) == {"kl@plain", "kl_reverse@plain"}
    assert tables.column_means(one.baselines.shuffled[""]) == {}
    few = evaluate_embeddings(
        [PlainEmbedder()], {"": eval_clips(rng.normal(size=(2, 2, 4)))}, eval_clips(rng.normal(size=(2, 2, 4)))
    )
    assert "4 windows cannot tell how 4 numbers vary" in few.baselines.notes[1]
    assert few.baselines.ground_truth_set == {}  # of halves of a clip each
    assert few.baselines.set_metrics[""]["fad@plain"].value > 0
    assert tables.to_markdown(few.rows[""], few.baselines).count("\n") > 2


def test_missing_ground_truth_and_texts_are_left_out() -> None:
    windows = np.random.default_rng(3).normal(size=(3, 1, 4))
    given = eval_clips(windows, ["1 0 0 0", "", "0 1 0 0"])
    found = evaluate_embeddings([PlainEmbedder()], {"": given})
    assert found.baselines.ground_truth == {}
    assert tables.column_means(found.rows[""])["clap_score@plain"].n == 2
    assert found.rows[""]["clip1"] == {}
    assert "ground truth" not in tables.to_markdown(found.rows[""], found.baselines)


def test_tag_recall_is_of_each_clip_with_its_own_and_with_shuffled_music() -> None:
    class Tagging(PlainEmbedder):
        def embed_audio(self, audio: Audio) -> AudioEmbedding:
            level = float(audio.samples[0, 0])
            return AudioEmbedding(
                np.ones((1, 4)), tag_probs={"jazz": level, "piano": level, "rock": 0.5, "a": 0.6, "b": 0.7}
            )

    sounds = [np.full((1, 4), level) for level in (0.9, 0.1)]
    clips = eval_clips(sounds)
    asked = {"clip0": Tags(genres=["jazz"], instruments=["grand piano", "kazoo"]), "clip1": Tags(genres=["rock"])}
    clips = {name: replace(clip, tags=asked[name]) for name, clip in clips.items()}
    result = evaluate_embeddings([Tagging()], {"": clips})
    assert [result.rows[""][name]["tag_recall@plain"] for name in clips] == [1.0, 1.0]
    shuffled = result.baselines.shuffled[""]
    assert [shuffled[name]["tag_recall@plain"] for name in clips] == [0.0, 0.0]


def test_seed_determines_the_halves() -> None:
    rng = np.random.default_rng(4)
    made, true = eval_clips(rng.normal(size=(8, 2, 4))), eval_clips(rng.normal(size=(8, 2, 4)))
    one, two, other = (evaluate_embeddings([PlainEmbedder()], {"": made}, true, seed=seed) for seed in (0, 0, 1))
    assert one.baselines.set_metrics[""]["fad@plain"].low == two.baselines.set_metrics[""]["fad@plain"].low
    assert one.baselines.ground_truth_set["fad@plain"].value != other.baselines.ground_truth_set["fad@plain"].value
    assert one.baselines.set_metrics[""]["fad@plain"].value == other.baselines.set_metrics[""]["fad@plain"].value


@pytest.mark.parametrize("windows", [np.zeros(4), np.zeros((0, 4)), np.full((1, 4), np.nan), None])
def test_invalid_embeddings_are_reported_in_one_line(windows: Any) -> None:
    class Odd(PlainEmbedder):
        def embed_audio(self, audio: Audio) -> AudioEmbedding:
            return AudioEmbedding(windows)

    with pytest.raises(UsageError, match=r"plain gave .* for clip0: finite \(windows, dimensions\) are needed"):
        evaluate_embeddings([Odd()], {"": eval_clips([np.zeros((1, 4))])})
