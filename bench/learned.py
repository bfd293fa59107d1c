"""Music of the learned model for held-out clips: does it follow the picture, and is it music.

    uv run python -m bench.learned [--model FOLDER] [--vidmuse FOLDER] [--unpaired FOLDER] [--clips FOLDER …]

Half of the synthetic clips have their cuts on beats of the tags' tempo, half at random times. The model writes music
for each with `--seeds` seeds, by the engine, sampling and windows of the recipe. All is measured in the sound and in
the notes, not in losses. In brackets: 95 % of the bootstrap over clips.

* hits: share of the cuts with an accent of the sound within ±70 (40) ms; accents are the strongest onsets, 2 a
  second, whatever the music (`tests.fixtures.score_statistics.sound_accents`).
* chance: share of the time that near an accent, the hits of cuts at random times; gain: hits − chance.
* chance_beats: hits of the same cuts moved by whole beats to where no cut is.
* wrong video: the same cuts against music for another clip's video and this clip's tags; other music: against music
  for another clip's video and tags. Both should have no gain; on beats the first may have one, by its tempo.
* the teacher is Sketch, whose scores the model was trained on, for the same clips and tags; `--teacher` measures it
  as if it was the model.

`--vidmuse` and `--unpaired` are models of equal budget with VidMuse's conditioner and without pairs of video and music,
which are compared with `--paired`, by default `--model`. A model is a folder or a training checkpoint. The held-out
clips are those of `--seed`. Settings are chosen with `--dev --sampling '{"temperature": 0.9}'`, on 24 clips of seed
1000 with one seed each, without what needs more music. `--folder` keeps clips and pieces: a run that ended goes on.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.learned_pieces import (
    MIN_CUTS,
    Clip,
    Model,
    Piece,
    PieceStore,
    Teacher,
    default_model,
    real_clips,
    synthetic_clips,
)
from tests.fixtures import score_statistics as statistics
from v2m.analysis.rhythm import track_beats
from v2m.analysis.synchrony import FRAME_TOLERANCE_S, density_correlation, sync_score
from v2m.core.types import Audio, Floats, Tags
from v2m.evaluation.distances import bootstrap_ci, derangements, frechet_distance
from v2m.evaluation.embedders.musicnn import TAGS, MusicnnEmbedder
from v2m.evaluation.tag_recall import tag_recall
from v2m.sketch.compose.lead_sheet import Part
from v2m.sketch.instruments import find_instruments
from v2m.sketch.notation.performance import estimate_key, perform
from v2m.sketch.notation.score import Score
from v2m.sketch.styles import choose_style

DEV_SEED, HELD_OUT_SEED = 1000, 2000
DEV_CLIPS = 24
OCTAVES = (1.0, 2.0, 0.5, 3.0, 1 / 3)
BRIGHT = 0.42  # middle of the light of synthetic scenes
SILENT_DB = -50.0  # of a block of 0.1 s
TAG_ROWS = ("tempo", "key", "instruments", "loudness_motion")
SYNC_ROWS = ("hits_70ms", "chance_70ms", "gain", "chance_beats", "gain_beats", "hits_40ms", "chance_40ms", "gain_40ms")
Row = dict[str, float]


def sync_row(clip: Clip, sound: Audio) -> Row:
    """Return hits and chances of the clip's cuts in a sound."""
    accents = statistics.sound_accents(sound)
    moved = statistics.beat_shifted(clip.cuts, clip.tags.tempo or 120.0, clip.duration)
    row = {"chance_beats": statistics.hit_share(moved, accents)}
    for name, tolerance in (("70ms", 0.07), ("40ms", FRAME_TOLERANCE_S)):
        row[f"hits_{name}"] = statistics.hit_share(clip.cuts, accents, tolerance)
        row[f"chance_{name}"] = statistics.chance_share(accents, clip.duration, tolerance)
    row["gain"] = row["hits_70ms"] - row["chance_70ms"]
    row["gain_40ms"] = row["hits_40ms"] - row["chance_40ms"]
    row["gain_beats"] = row["hits_70ms"] - row["chance_beats"]
    return row


def tag_row(tags: Tags, piece: Piece, score: Score, seed: int) -> Row:
    """Return whether tempo, key and instruments are those of the tags."""
    tempo, beats, key = statistics.score_tempo(score), track_beats(piece.sound), estimate_key(score)
    wanted = tags.tonic_and_mode
    relative = (key.tonic + (3 if key.mode == "minor" else -3)) % 12, {"minor": "major", "major": "minor"}[key.mode]
    parts = perform(score, choose_style(tags), tags, seed).parts
    row = {f"has_{word}": float(_plays(word, parts)) for word in tags.instruments}
    return {
        "instruments": float(np.mean(list(row.values()))) if row else np.nan,
        "tempo": float(statistics.same_tempo(tempo, tags.tempo or 0.0)) if tags.tempo else np.nan,
        "tempo_sound": float(beats is not None and statistics.same_tempo(beats.tempo, tags.tempo or 0.0)),
        "tempo_sound_any_octave": float(
            beats is not None and statistics.same_tempo(beats.tempo, tags.tempo or 0.0, OCTAVES)
        ),
        "key": float((key.tonic, key.mode) == wanted) if wanted else np.nan,
        "key_or_relative": float(wanted in ((key.tonic, key.mode), relative)) if wanted else np.nan,
    }


def _plays(word: str, parts: Sequence[Part]) -> bool:
    """Return whether one of the parts is an instrument that the word names; True for an unknown word."""
    wanted = find_instruments([word])
    return not wanted or any(
        part.is_drums if stem == "drums" else part.program in programs for stem, programs in wanted for part in parts
    )


def music_row(clip: Clip, piece: Piece, score: Score) -> Row:
    """Return the statistics of notes and sound, and how they follow the motion."""
    features = clip.video.visual_features()
    blocks = piece.sound.samples[0][: len(piece.sound) // 1600 * 1600].reshape(-1, 1600)
    levels = 20 * np.log10(np.sqrt(np.square(blocks).mean(axis=1)) + 1e-9)
    ends = [note.end for _, note in score.notes]
    dynamics = sync_score(piece.sound, features).dynamics
    density = density_correlation([note.onset for _, note in score.notes], features)
    return {
        **statistics.music_statistics(score),
        "silence": float(np.mean(levels < SILENT_DB)),
        "sounds_to_the_end": float(levels[-10:].max() > SILENT_DB),
        "notes_past_the_end": float(sum(end > clip.duration + 1e-6 for end in ends)),
        "longest_note_s": max((note.end - note.onset for _, note in score.notes), default=np.nan),
        "loudness_motion": np.nan if dynamics is None else dynamics,
        "density_motion": np.nan if density is None else density,
    }


def mean_row(rows: Sequence[Row]) -> Row:
    """Return the means of each figure, without those that are NaN."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}
    return {name: float(np.nanmean(v)) if np.isfinite(v).any() else np.nan for name, v in values.items()}


def interval(values: Sequence[float] | Floats) -> list[float]:
    """Return the 95 % interval of the mean of the values that are numbers."""
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    return [round(bound, 4) for bound in bootstrap_ci(numbers)] if len(numbers) else [np.nan, np.nan]


def show(title: str, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Print the mean and interval of each figure."""
    mean = mean_row(rows)
    print(f"\n{title}, {len(rows)} clips")
    for name in names:
        low, high = interval([row.get(name, np.nan) for row in rows])
        print(f"  {name:<24}{mean.get(name, np.nan):>8.3f}  [{low:.3f}, {high:.3f}]")


def sync_rows(store: PieceStore, clips: list[Clip], seeds: int) -> list[Row]:
    """Return the figures of each clip, means over seeds."""
    return [mean_row([sync_row(clip, store.piece(clip, seed).sound) for seed in range(seeds)]) for clip in clips]


def wrong_rows(store: PieceStore, clips: list[Clip], seeds: int) -> tuple[list[Row], list[Row]]:
    """Return the figures of each clip against music for another's video, and against another's music."""
    partners = [clips[index] for index in derangements(len(clips), 1)[0]]
    video, music = [], []
    for clip, other in zip(clips, partners, strict=True):
        video.append(sync_row(clip, store.piece(clip, 0, shown=other.video).sound))
        music.append(mean_row([sync_row(clip, store.piece(other, seed).sound) for seed in range(seeds)]))
    return video, music


def content_rows(store: PieceStore, clips: list[Clip], seeds: int) -> list[Row]:
    """Return what is not about cuts, of each clip, means over seeds."""
    rows = []
    for clip in clips:
        of_seeds = []
        for seed in range(seeds):
            piece = store.piece(clip, seed)
            score = store.writer.codec.decode_score(piece.codes, clip.duration, clip.tags)
            of_seeds.append({**tag_row(clip.tags, piece, score, seed), **music_row(clip, piece, score)})
        rows.append(mean_row(of_seeds))
    return rows


def major_shares(store: PieceStore, clips: list[Clip]) -> dict[str, float]:
    """Return the share of major among bright and dark clips, without a key in the tags."""
    major: dict[str, list[bool]] = {"bright": [], "dark": []}
    for clip in clips:
        piece = store.piece(clip, 0, tags=replace(clip.tags, key=None))
        key = estimate_key(store.writer.codec.decode_score(piece.codes, clip.duration))
        major["bright" if clip.light >= BRIGHT else "dark"].append(key.mode == "major")
    return {name: round(float(np.mean(values)), 3) if values else np.nan for name, values in major.items()}


def tagger_figures(store: PieceStore, teacher: PieceStore, clips: list[Clip]) -> dict[str, float]:
    """Return the recall of asked tags by musicnn, and Fréchet distances to the teacher's pieces.

    `frechet_floor` is that of the teacher's pieces with another seed. Few windows make both too high.
    """
    networks = [MusicnnEmbedder(name, "cpu") for name in TAGS]
    embeddings: dict[str, Floats] = {}
    recalls: dict[str, float] = {}
    for name, source, seed in (("model", store, 0), ("teacher", teacher, 0), ("other seed", teacher, 1)):
        outputs = [[network.embed_audio(source.piece(clip, seed).sound) for network in networks] for clip in clips]
        embeddings[name] = np.concatenate([of_clip[-1].embeddings for of_clip in outputs])
        probs = [[output.tag_probs or {} for output in of_clip] for of_clip in outputs]
        values = [tag_recall(clip.tags, of_clip) for clip, of_clip in zip(clips, probs, strict=True)]
        recalls[name] = float(np.mean([value for value in values if value is not None]))
    return {
        "tag_recall": recalls["model"],
        "tag_recall_teacher": recalls["teacher"],
        "frechet": frechet_distance(embeddings["model"], embeddings["teacher"]),
        "frechet_floor": frechet_distance(embeddings["other seed"], embeddings["teacher"]),
    }


def column(rows: Sequence[Row], name: str) -> Floats:
    return np.array([row[name] for row in rows])


def compare(store: PieceStore, args: argparse.Namespace, clips: list[Clip]) -> dict[str, Any]:
    """Return the difference of gains to VidMuse's conditioner, and the share of them without pairs."""
    figures: dict[str, Any] = {"vidmuse_gain_ci95": None, "unpaired_gain": None}
    if not (args.vidmuse or args.unpaired):
        return figures
    paired = PieceStore(Model(args.paired, args.sampling), args.folder) if args.paired else store
    own_rows = sync_rows(paired, clips, args.seeds)
    own = column(own_rows, "gain")
    show("the model that is compared", own_rows, SYNC_ROWS)
    show("", content_rows(paired, clips, args.seeds), TAG_ROWS)
    for name in ("vidmuse", "unpaired"):
        if getattr(args, name) is None:
            continue
        sampling = args.unpaired_sampling or args.sampling if name == "unpaired" else args.sampling
        other = PieceStore(Model(getattr(args, name), sampling), args.folder)
        rows = sync_rows(other, clips, args.seeds)
        show(name, rows, SYNC_ROWS)
        show("", content_rows(other, clips, args.seeds), TAG_ROWS)
        gain = column(rows, "gain")
        figures[f"{name}_gain_of_its_own_ci95"] = interval(gain)
        if name == "vidmuse":
            figures["vidmuse_gain_ci95"] = interval(own - gain)
        else:
            figures["unpaired_gain"] = round(float(gain.mean() / own.mean()), 4)
    return figures


def content_means(store: PieceStore, teacher: PieceStore, clips: list[Clip], seeds: int) -> tuple[Row, Row]:
    """Print and return the means of what is not about cuts, of the model and of the teacher."""
    rows = content_rows(store, clips, seeds)
    means, taught = mean_row(rows), mean_row(content_rows(teacher, clips, 1))
    print(f"\n{'':<26}{'model':>8}   {'95 %':<18}{'teacher':>9}")
    for name in means:
        low, high = interval([row.get(name, np.nan) for row in rows])
        bounds = f"[{low:.3f}, {high:.3f}]"
        print(f"  {name:<24}{means[name]:>8.3f}   {bounds:<18}{taught.get(name, np.nan):>9.3f}")
    return means, taught


def real_figures(store: PieceStore, args: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures of real clips: cuts of those that have any, motion of all."""
    clips = real_clips(args.clips)
    cut = [clip for clip in clips if len(clip.cuts) >= MIN_CUTS]
    if len(cut) < 2:
        return {}
    rows, (wrong, _) = sync_rows(store, cut, args.seeds), wrong_rows(store, cut, args.seeds)
    show("real clips with cuts", rows, SYNC_ROWS)
    show("real clips, another's video", wrong, SYNC_ROWS)
    content = content_rows(store, clips, args.seeds)
    show("all real clips", content, ("density_motion", *TAG_ROWS))
    return {
        "real_clips": len(clips),
        "real_clips_with_cuts": len(cut),
        "real_hits_70ms": mean_row(rows)["hits_70ms"],
        "real_gain_ci95": interval(column(rows, "gain")),
        "real_wrong_video_gain_ci95": interval(column(wrong, "gain")),
        "real_loudness_motion_ci95": interval(column(content, "loudness_motion")),
    }


def speed(store: PieceStore, clips: list[Clip], seeds: int) -> dict[str, float]:
    """Return the median seconds that a second of music takes, by the clock and of the processor."""
    pieces = [(clip.duration, store.piece(clip, seed)) for clip in clips for seed in range(seeds)]
    return {
        "seconds_per_second": float(np.median([piece.seconds / duration for duration, piece in pieces])),
        "processor_seconds_per_second": float(
            np.median([piece.processor_seconds / duration for duration, piece in pieces])
        ),
    }


def develop(store: PieceStore, teacher: PieceStore, clips: list[Clip], rows: list[Row]) -> dict[str, Any]:
    """Return figures for the choice of settings."""
    means, _ = content_means(store, teacher, clips, 1)
    figures = {**mean_row(rows), **means, **speed(store, clips, 1)}
    return {"clips": len(clips), **{name: value for name, value in figures.items() if np.isfinite(value)}}


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Print all tables; return the figures."""
    clips = synthetic_clips(args.folder / f"clips-{args.seed}-{args.seconds:g}", args.count, args.seconds, args.seed)
    teacher = PieceStore(Teacher(), args.folder)
    if args.compare_only:
        store = PieceStore(Model(args.paired or args.model or default_model(), args.sampling), args.folder)
        return {"clips": len(clips), "seeds": args.seeds, "seed": args.seed, **compare(store, args, clips)}
    store = teacher if args.teacher else PieceStore(Model(args.model or default_model(), args.sampling), args.folder)
    rows = sync_rows(store, clips, args.seeds)
    for kind in ("on beats", "off beats"):
        show(f"cuts {kind}", [row for clip, row in zip(clips, rows, strict=True) if clip.kind == kind], SYNC_ROWS)
    show("all cuts", rows, SYNC_ROWS)
    if args.dev:
        return develop(store, teacher, clips, rows)
    wrong, other = wrong_rows(store, clips, args.seeds)
    show("another's video, own tags", wrong, SYNC_ROWS)
    show("another's music", other, SYNC_ROWS)
    show("the teacher", sync_rows(teacher, clips, 1), SYNC_ROWS)
    means, teacher_means = content_means(store, teacher, clips, args.seeds)
    modes = {"model": major_shares(store, clips), "teacher": major_shares(teacher, clips)}
    print("share of major without a key in the tags:", modes)
    taggers = tagger_figures(store, teacher, clips)
    print("musicnn:", {name: round(value, 3) for name, value in taggers.items()})
    real = real_figures(store, args)
    mean, wrong_mean, other_mean = mean_row(rows), mean_row(wrong), mean_row(other)
    return {
        "clips": len(clips),
        "seeds": args.seeds,
        "seed": args.seed,
        "model": "sketch" if args.teacher else Path(args.model or default_model()).name,
        **{name: mean[name] for name in SYNC_ROWS},
        "gain_ci95": interval(column(rows, "gain")),
        "gain_beats_ci95": interval(column(rows, "gain_beats")),
        "gain_over_wrong_video_ci95": interval(column(rows, "hits_70ms") - column(wrong, "hits_70ms")),
        "hits_wrong_video": wrong_mean["hits_70ms"],
        "wrong_video_gain_ci95": interval(column(wrong, "gain")),
        "wrong_video_gain_beats_ci95": interval(column(wrong, "gain_beats")),
        "hits_other_music": other_mean["hits_70ms"],
        "other_music_gain_ci95": interval(column(other, "gain")),
        **compare(store, args, clips),
        **{name: value for name, value in means.items() if np.isfinite(value)},
        "teacher": {name: round(value, 4) for name, value in teacher_means.items() if np.isfinite(value)},
        "major": modes,
        **taggers,
        **real,
        **speed(store, clips, args.seeds),
        "weights_mb": store.writer.weights_mb,
        "parameters": store.writer.num_parameters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a training checkpoint; the recipe's by default")
    parser.add_argument("--teacher", action="store_true", help="measure Sketch in place of the model")
    parser.add_argument("--vidmuse", metavar="MODEL")
    parser.add_argument("--unpaired", metavar="MODEL")
    parser.add_argument("--paired", metavar="MODEL")
    parser.add_argument("--compare-only", action="store_true", help="measure these alone")
    parser.add_argument("--count", type=int, default=40, help="synthetic clips")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a synthetic clip")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help=f"of the clips; {DEV_SEED} for development")
    parser.add_argument("--dev", action="store_true", help="for the choice of settings")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="real videos, or folders of them")
    parser.add_argument("--sampling", type=json.loads, help="JSON, over the recipe's sampling")
    parser.add_argument("--unpaired-sampling", type=json.loads, help="the same, for --unpaired")
    parser.add_argument("--folder", type=Path, help="keep clips and pieces here")
    args = parser.parse_args()
    if args.dev:
        args.count, args.seeds, args.seed = min(args.count, DEV_CLIPS), 1, DEV_SEED
    with contextlib.ExitStack() as stack:
        args.folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        figures = evaluate(args)
    print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items()}))


if __name__ == "__main__":
    main()
