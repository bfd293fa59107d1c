"""How good is the music of these videos: `v2m evaluate VIDEOS… [--compare A/ B/]`.

Without weights and network, unless --embedding asks for measures that need a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser
from v2m.core.errors import UsageError
from v2m.evaluation import tables
from v2m.evaluation.embedding_metrics import BASELINE_COLUMNS as BESIDE
from v2m.evaluation.embedding_metrics import EMBEDDING_METRICS, EvalClip, evaluate_embeddings
from v2m.evaluation.ground_truth import (
    evaluate_file,
    evaluate_files,
    evaluate_paths,
    ground_truth_audio,
    ground_truth_files,
    sidecar_tags,
    video_audio,
    videos_by_name,
)
from v2m.evaluation.per_clip import METRICS, Row, clip_metrics
from v2m.evaluation.tables import Baselines

__all__ = ["evaluate_file", "evaluate_paths", "main"]


def parse_args(argv: Sequence[str]) -> Namespace:
    """Raises UsageError for a command that cannot be."""
    parser = OneLineParser(prog="v2m evaluate", description="Measures the music of videos.")
    parser.add_argument("videos", nargs="*", default=[], type=str, help="videos, or folders of them")
    parser.add_argument(
        "--compare", nargs="+", default=None, type=str, help="folders, one a system, of the same videos"
    )
    parser.add_argument(
        "--ground-truth",
        type=str,
        default=None,
        help="folder with the true music of each video: sound files, or videos",
    )
    parser.add_argument(
        "--embedding",
        nargs="+",
        default=[],
        type=str,
        help="measures with weights: clap, ast, pe-av, vggish, imagebind, or the path of a class of yours; "
        "=WEIGHTS behind each takes another repository or folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="of whose music is shuffled to whom, and of the halves")
    parser.add_argument("--csv", type=str, default=None, help="a new file for the values of each video")
    parser.add_argument("--summary", type=str, default=None, help="a new CSV file for means, intervals, n")
    parser.add_argument("--wandb", type=str, default=None, help="a project of W&B for both; offline without a key")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser.parse_args(list(argv))


def evaluate(argv: Sequence[str]) -> str:
    """Measures what a command asks for; the table, in Markdown, and what its measures are."""
    asked = parse_args(argv)
    paths = _find_videos(asked)
    first = next(iter(paths.values()))
    true = None if asked.ground_truth is None else ground_truth_files(Path(asked.ground_truth), first)
    embeddings = _build_embedders(asked.embedding)
    systems: dict[str, dict[str, Row]] = {name: evaluate_files(each) for name, each in paths.items()}
    beside = Baselines()
    if true is not None:
        beside.ground_truth = {name: _ground_truth_row(first[name], path) for name, path in true.items()}
    if embeddings:
        beside = _add_embedding_metrics(
            asked, embeddings, paths=paths, true=true, systems=systems, truth=beside.ground_truth
        )
    _write_outputs(asked, systems, beside)
    made = tables.comparison_markdown(systems, beside) if asked.compare else tables.to_markdown(systems[""], beside)
    return "\n\n".join([made, *(["\n".join(f"* {note}" for note in beside.notes)] * bool(beside.notes)), legend(made)])


def legend(table: str) -> str:
    """What the measures of a table are."""
    named = {line.split("|")[1].strip() for line in table.splitlines()}
    known = METRICS | {name: meaning for name, meaning in EMBEDDING_METRICS.items() if name in named}
    lines = [f"* {name}: {meaning}" for name, meaning in known.items()]
    return "\n".join([*lines, *(f"* {name}: {meaning}" for name, meaning in BESIDE.items() if f"| {name}" in table)])


def _find_videos(args: Namespace) -> dict[str, dict[str, Path]]:
    """The videos of each system, by name; the same ones where systems are compared. Raises UsageError."""
    if bool(args.videos) == bool(args.compare):
        raise UsageError("name videos or folders of them, or --compare two folders or more")
    for file in filter(None, (args.csv, args.summary)):
        if Path(file).exists():
            raise UsageError(f"{file} exists already: give a new file")
    if not args.compare:
        return {"": videos_by_name(args.videos)}
    for place in args.compare:
        if not Path(place).is_dir():
            raise UsageError(f"{place!r} is no folder: --compare takes one for each system")
    if len(args.compare) < 2:
        raise UsageError(f"--compare {args.compare[0]}: give two folders or more")
    found = {name: videos_by_name([name]) for name in args.compare}
    shared = sorted(set.intersection(*(set(paths) for paths in found.values())))
    if not shared:
        raise UsageError(f"{', '.join(found)} hold no video of the same name")
    if args.ground_truth is None and not args.embedding:
        return found
    return {name: {clip: paths[clip] for clip in shared} for name, paths in found.items()}


def _build_embedders(specs: Sequence[str]) -> list[Any]:
    if not specs:
        return []
    from v2m.evaluation.embedders import build_embedders

    return build_embedders(specs)


def _ground_truth_row(path: Path, sound: Path) -> Row:
    """The measures of the true music under the picture of a video."""
    from v2m.media import video

    clip = video.open(path)
    found = clip_metrics(
        ground_truth_audio(sound, clip.duration), clip.visual_features(), clip.duration, sidecar_tags(path)
    )
    return {**found, "length_error_ms": None}  # it is cut to the picture


def _add_embedding_metrics(
    args: Namespace,
    embeddings: Sequence[Any],
    *,
    paths: Mapping[str, Mapping[str, Path]],
    true: Mapping[str, Path] | None,
    systems: dict[str, dict[str, Row]],
    truth: dict[str, Row],
) -> Baselines:
    """Adds measures with weights to the rows of `systems`; what stands beside, with the rows of `truth`."""
    from tqdm import tqdm

    first = next(iter(paths.values()))
    pieces = {name: {clip: _eval_clip(path) for clip, path in each.items()} for name, each in paths.items()}
    whole = None if true is None else {clip: _ground_truth_clip(first[clip], path) for clip, path in true.items()}
    count = (len(paths) + (true is not None)) * len(first) * len(embeddings)
    with tqdm(total=count, desc="hearing", unit="piece", disable=None) as bar:
        found = evaluate_embeddings(embeddings, pieces, whole, seed=args.seed, on_progress=bar.update)
    for name, rows in found.rows.items():
        systems[name] = {clip: {**known, **rows.get(clip, {})} for clip, known in systems[name].items()}
    held = found.baselines.ground_truth
    found.baselines.ground_truth = {clip: {**truth.get(clip, {}), **held.get(clip, {})} for clip in {**truth, **held}}
    return found.baselines


def _eval_clip(path: Path) -> EvalClip:
    from v2m.core.prompts import build_prompt
    from v2m.media import video

    tags = sidecar_tags(path)
    return EvalClip(lambda: video_audio(video.open(path)), lambda: video.open(path), build_prompt(tags) if tags else "")


def _ground_truth_clip(path: Path, sound: Path) -> EvalClip:
    from v2m.media import video

    return EvalClip(lambda: ground_truth_audio(sound, video.open(path).duration))


def _write_outputs(args: Namespace, systems: Mapping[str, Mapping[str, Row]], beside: Baselines) -> None:
    if args.csv:
        Path(args.csv).write_text(tables.to_csv(systems, beside), encoding="utf-8")
    if args.summary:
        Path(args.summary).write_text(tables.summary_csv(systems, beside), encoding="utf-8")
    if args.wandb:
        from v2m.training.log_tables import log_to_wandb

        log_to_wandb(args.wandb, systems, beside)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    return run_command(evaluate, argv, name="v2m evaluate", output_option="file")
