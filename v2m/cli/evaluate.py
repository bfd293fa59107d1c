"""How good is the music of these videos: `v2m evaluate VIDEOS… [--compare A/ B/]`.

Without weights and network, unless --embedding asks for measures that need a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from v2m.cli import runner
from v2m.core.errors import UsageError
from v2m.evaluation import tables
from v2m.evaluation.embedding_metrics import COLUMNS as BESIDE
from v2m.evaluation.embedding_metrics import MEASURES, Piece, weigh
from v2m.evaluation.ground_truth import measured, named, rows_in, rows_of, sound_of, tags_beside, true_files, true_sound
from v2m.evaluation.per_clip import COLUMNS, Row, row
from v2m.evaluation.tables import Beside

__all__ = ["main", "measured", "rows_in"]


def parse(argv: Sequence[str]) -> Namespace:
    """Raises UsageError for a command that cannot be."""
    parser = runner.Parser(prog="v2m evaluate", description="Measures the music of videos.")
    parser.add_argument("videos", nargs="*", default=[], type=str, help="videos, or folders of them")
    parser.add_argument(
        "--compare", nargs="+", default=None, type=str, help="folders, one a system, of the same videos"
    )
    parser.add_argument(
        "--truth", type=str, default=None, help="folder with the true music of each video: sound files, or videos"
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


def table_asked(argv: Sequence[str]) -> str:
    """Measures what a command asks for; the table, in Markdown, and what its measures are."""
    asked = parse(argv)
    paths = _systems(asked)
    first = next(iter(paths.values()))
    true = None if asked.truth is None else true_files(Path(asked.truth), first)
    embeddings = _embeddings(asked.embedding)
    systems: dict[str, dict[str, Row]] = {name: rows_of(each) for name, each in paths.items()}
    beside = Beside()
    if true is not None:
        beside.truth = {name: _true_row(first[name], path) for name, path in true.items()}
    if embeddings:
        beside = _weighed(asked, embeddings, paths=paths, true=true, systems=systems, truth=beside.truth)
    _write(asked, systems, beside)
    made = tables.compared(systems, beside) if asked.compare else tables.markdown(systems[""], beside)
    return "\n\n".join([made, *(["\n".join(f"* {note}" for note in beside.notes)] * bool(beside.notes)), legend(made)])


def legend(made: str) -> str:
    """What the measures of a table are."""
    named = {line.split("|")[1].strip() for line in made.splitlines()}
    known = COLUMNS | {name: meaning for name, meaning in MEASURES.items() if name in named}
    lines = [f"* {name}: {meaning}" for name, meaning in known.items()]
    return "\n".join([*lines, *(f"* {name}: {meaning}" for name, meaning in BESIDE.items() if f"| {name}" in made)])


def _systems(asked: Namespace) -> dict[str, dict[str, Path]]:
    """The videos of each system, by name; the same ones where systems are compared. Raises UsageError."""
    if bool(asked.videos) == bool(asked.compare):
        raise UsageError("name videos or folders of them, or --compare two folders or more")
    for file in filter(None, (asked.csv, asked.summary)):
        if Path(file).exists():
            raise UsageError(f"{file} exists already: give a new file")
    if not asked.compare:
        return {"": named(asked.videos)}
    for place in asked.compare:
        if not Path(place).is_dir():
            raise UsageError(f"{place!r} is no folder: --compare takes one for each system")
    if len(asked.compare) < 2:
        raise UsageError(f"--compare {asked.compare[0]}: give two folders or more")
    found = {name: named([name]) for name in asked.compare}
    shared = sorted(set.intersection(*(set(paths) for paths in found.values())))
    if not shared:
        raise UsageError(f"{', '.join(found)} hold no video of the same name")
    if asked.truth is None and not asked.embedding:
        return found
    return {name: {clip: paths[clip] for clip in shared} for name, paths in found.items()}


def _embeddings(asked: Sequence[str]) -> list[Any]:
    if not asked:
        return []
    from v2m.evaluation.embedders import find

    return find(asked)


def _true_row(path: Path, sound: Path) -> Row:
    """The measures of the true music under the picture of a video."""
    from v2m.media import video

    clip = video.open(path)
    found = row(true_sound(sound, clip.duration), clip.visual_features(), clip.duration, tags_beside(path))
    return {**found, "length_error_ms": None}  # it is cut to the picture


def _weighed(
    asked: Namespace,
    embeddings: Sequence[Any],
    *,
    paths: Mapping[str, Mapping[str, Path]],
    true: Mapping[str, Path] | None,
    systems: dict[str, dict[str, Row]],
    truth: dict[str, Row],
) -> Beside:
    """Adds measures with weights to the rows of `systems`; what stands beside, with the rows of `truth`."""
    from tqdm import tqdm

    first = next(iter(paths.values()))
    pieces = {name: {clip: _piece(path) for clip, path in each.items()} for name, each in paths.items()}
    whole = None if true is None else {clip: _true_piece(first[clip], path) for clip, path in true.items()}
    count = (len(paths) + (true is not None)) * len(first) * len(embeddings)
    with tqdm(total=count, desc="hearing", unit="piece", disable=None) as bar:
        found = weigh(embeddings, pieces, whole, seed=asked.seed, told=bar.update)
    for name, rows in found.rows.items():
        systems[name] = {clip: {**known, **rows.get(clip, {})} for clip, known in systems[name].items()}
    held = found.beside.truth
    found.beside.truth = {clip: {**truth.get(clip, {}), **held.get(clip, {})} for clip in {**truth, **held}}
    return found.beside


def _piece(path: Path) -> Piece:
    from v2m.core.prompts import line
    from v2m.media import video

    tags = tags_beside(path)
    return Piece(lambda: sound_of(video.open(path)), lambda: video.open(path), line(tags) if tags else "")


def _true_piece(path: Path, sound: Path) -> Piece:
    from v2m.media import video

    return Piece(lambda: true_sound(sound, video.open(path).duration))


def _write(asked: Namespace, systems: Mapping[str, Mapping[str, Row]], beside: Beside) -> None:
    if asked.csv:
        Path(asked.csv).write_text(tables.comma_separated(systems, beside), encoding="utf-8")
    if asked.summary:
        Path(asked.summary).write_text(tables.summary_csv(systems, beside), encoding="utf-8")
    if asked.wandb:
        from v2m.training.log_tables import log_to_wandb

        log_to_wandb(asked.wandb, systems, beside)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    return runner.run(table_asked, argv, name="v2m evaluate", place="file")
