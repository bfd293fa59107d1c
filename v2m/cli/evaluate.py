"""Metrics of the music of videos: `v2m evaluate VIDEOS… [--compare A/ B/]`.

Without weights and network, unless --embedding names a pretrained model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import Namespace

from v2m.cli.engine import ENGINE_FLAGS, add_engine_arguments, build_engine
from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser
from v2m.core.engine import Engine
from v2m.core.errors import UsageError
from v2m.evaluation import embedding_metrics, per_clip, tables
from v2m.evaluation.embedders import Embedder, adapt, build_embedders
from v2m.evaluation.embedding_metrics import EmbeddingResults, EvalClip
from v2m.evaluation.per_clip import Row, evaluate_file, evaluate_paths, sidecar_tags, videos_by_name
from v2m.evaluation.tables import Baselines

__all__ = ["evaluate_file", "evaluate_paths", "main"]


def build_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    parser = OneLineParser(prog="v2m evaluate", description="Measures the music of videos.")
    parser.add_argument("videos", nargs="*", default=[], type=str, help="videos, or folders of them")
    add = parser.add_argument
    add("--compare", nargs="+", default=None, type=str, help="folders, one a system, of the same videos")
    truth = "folder with the true music of each video: sound files, or videos"
    add("--ground-truth", type=str, default=None, help=truth)
    measures = "measures with weights: clap, ast, pe-av, musicnn, vggish, imagebind, or the path of a class of yours; "
    weights = "=WEIGHTS behind each takes another repository or folder"
    add("--embedding", nargs="+", default=[], type=str, help=measures + weights)
    add("--seed", type=int, default=0, help="of whose music is shuffled to whom, and of the halves")
    add("--csv", type=str, default=None, help="a new file for the values of each video")
    add("--summary", type=str, default=None, help="a new CSV file for means, intervals, n")
    add("--wandb", type=str, default=None, help="a project of W&B for both; offline without a key")
    add_engine_arguments(parser)
    add("--processes", type=int | None, default=None, help="with --engine ray: videos side by side; default: as fit")
    add("--debug", action="store_true", help="show where an error came from")
    return parser


def evaluate(argv: Sequence[str]) -> str:
    """Compute the metrics that the options ask for; return the table in Markdown, notes and a legend."""
    args = build_parser().parse_args(list(argv))
    engine, videos = build_engine(args), _find_videos(args)
    first = next(iter(videos.values()))
    truth_files = {} if args.ground_truth is None else per_clip.ground_truth_files(Path(args.ground_truth), first)
    embedders = build_embedders(args.embedding) if args.embedding else []
    systems = per_clip.evaluate_systems(videos, engine)
    baselines = Baselines()
    if truth_files:
        baselines.ground_truth = {name: _ground_truth_row(first[name], path) for name, path in truth_files.items()}
    if embedders:
        results = _embedding_metrics(embedders, videos, truth_files, args.seed, engine)
        for name, rows in systems.items():
            systems[name] = _joined_rows(rows, results.rows.get(name, {}))
        results.baselines.ground_truth = _joined_rows(baselines.ground_truth, results.baselines.ground_truth)
        baselines = results.baselines
    _write_outputs(args, systems, baselines)
    compare = bool(args.compare)
    table = tables.comparison_markdown(systems, baselines) if compare else tables.to_markdown(systems[""], baselines)
    notes = ["\n".join(f"* {note}" for note in baselines.notes)] if baselines.notes else []
    return "\n\n".join([table, *notes, legend(table)])


def legend(table: str) -> str:
    """Return the meanings of the metrics and baselines in a Markdown table."""
    metrics = {line.split("|")[1].strip() for line in table.splitlines()}
    more, baselines = embedding_metrics.EMBEDDING_METRICS, embedding_metrics.BASELINE_COLUMNS
    meanings = per_clip.METRICS | {name: meaning for name, meaning in more.items() if name in metrics}
    meanings |= {name: meaning for name, meaning in baselines.items() if f"| {name}" in table}
    return "\n".join(f"* {name}: {meaning}" for name, meaning in meanings.items())


def _find_videos(args: Namespace) -> dict[str, dict[str, Path]]:
    """Return the videos of each system by name, only the shared ones where a metric needs them."""
    if bool(args.videos) == bool(args.compare):
        raise UsageError("name videos or folders of them, or --compare two folders or more")
    for file in filter(None, (args.csv, args.summary)):
        if Path(file).exists():
            raise UsageError(f"{file} exists already: give a new file")
    if not args.compare:
        return {"": videos_by_name(args.videos)}
    for folder in args.compare:
        if not Path(folder).is_dir():
            raise UsageError(f"{folder!r} is no folder: --compare takes one for each system")
    if len(args.compare) < 2:
        raise UsageError(f"--compare {args.compare[0]}: give two folders or more")
    systems = {name: videos_by_name([name]) for name in args.compare}
    shared = sorted(set.intersection(*(set(paths) for paths in systems.values())))
    if not shared:
        raise UsageError(f"{', '.join(systems)} hold no video of the same name")
    if args.ground_truth is None and not args.embedding:
        return systems
    return {name: {clip: paths[clip] for clip in shared} for name, paths in systems.items()}


def _ground_truth_row(path: Path, audio_path: Path) -> Row:
    """Return the metrics of the ground truth with the picture of a video."""
    from v2m.media import video

    clip = video.open(path)
    audio = per_clip.ground_truth_audio(audio_path, clip.duration)
    row = per_clip.clip_metrics(audio, clip.visual_features(), clip.duration, sidecar_tags(path))
    return {**row, "length_error_ms": None}  # it is cut to the video


def _embedding_metrics(
    embedders: Sequence[Embedder],
    videos: Mapping[str, Mapping[str, Path]],
    truth_files: Mapping[str, Path],
    seed: int,
    engine: Engine | None,
) -> EmbeddingResults:
    from tqdm import tqdm

    first = next(iter(videos.values()))
    systems = {name: {clip: _eval_clip(path) for clip, path in paths.items()} for name, paths in videos.items()}
    truth = {clip: _ground_truth_clip(first[clip], path) for clip, path in truth_files.items()} or None
    music = (len(videos) + (truth is not None)) * len(first) * len(embedders)
    count = music + len(first) * sum(adapt(embedder).embeds_video for embedder in embedders)
    with tqdm(total=count, desc="embedding", unit="piece", disable=None) as bar:
        return embedding_metrics.evaluate_embeddings(
            embedders, systems, truth, seed=seed, on_progress=bar.update, engine=engine
        )


def _joined_rows(rows: Mapping[str, Row], more: Mapping[str, Row]) -> dict[str, Row]:
    return {clip: {**rows.get(clip, {}), **more.get(clip, {})} for clip in {**rows, **more}}


def _eval_clip(path: Path) -> EvalClip:
    from v2m.core.prompts import build_prompt
    from v2m.media import video

    tags = sidecar_tags(path)
    prompt = build_prompt(tags) if tags else ""
    return EvalClip(lambda: per_clip.video_audio(video.open(path)), lambda: video.open(path), prompt, tags)


def _ground_truth_clip(path: Path, audio_path: Path) -> EvalClip:
    from v2m.media import video

    return EvalClip(lambda: per_clip.ground_truth_audio(audio_path, video.open(path).duration))


def _write_outputs(args: Namespace, systems: Mapping[str, Mapping[str, Row]], baselines: Baselines) -> None:
    if args.csv:
        Path(args.csv).write_text(tables.to_csv(systems, baselines), encoding="utf-8")
    if args.summary:
        Path(args.summary).write_text(tables.summary_csv(systems, baselines), encoding="utf-8")
    if args.wandb:
        from v2m.training.wandb_logger import log_to_wandb

        log_to_wandb(args.wandb, systems, baselines)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return run_command(evaluate, argv, name="v2m evaluate", flags={"out": "file", **ENGINE_FLAGS})
