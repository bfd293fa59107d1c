"""Scoring of many videos: finished ones are left alone, and a failure does not stop the others."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from v2m.core import errors
from v2m.core.errors import InvalidInputError, UsageError
from v2m.media.video import VIDEO_SUFFIXES
from v2m.pipeline import sidecar
from v2m.pipeline.outputs import printable
from v2m.pipeline.recipes import Recipe
from v2m.pipeline.score import score_video


class VideoResult(NamedTuple):
    """Outcome of one video. `status`: done, unchanged, failed or not done."""

    path: Path
    status: str
    detail: str = ""
    code: int = errors.OK
    seconds: float = 0.0
    trace: str = ""  # where it failed


def find_videos(paths: Iterable[Path]) -> list[Path]:
    """Return the named files and the videos directly in each folder, without v2m's own outputs."""
    videos: list[Path] = []
    for path in paths:
        try:
            inside = sorted(file for file in path.iterdir() if _is_video(file)) if is_folder(path) else [path]
        except PermissionError:
            raise InvalidInputError("permission", f"{str(path)!r} may not be read; change its permissions") from None
        if not inside:
            raise InvalidInputError("no_videos", f"{str(path)!r} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
        videos += inside
    return list(dict.fromkeys(videos))


def is_folder(path: Path) -> bool:
    """Return False where that cannot be known; `media.video.open` then says why."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises in a folder that may not be entered


def _is_video(path: Path) -> bool:
    own = ".v2m" in path.suffixes[-2:] or path.name.startswith(".")
    return path.suffix.lower() in VIDEO_SUFFIXES and not own and not path.is_dir()


def process_videos(
    paths: Sequence[Path], out: Path | None, recipe: Recipe, overwrite: bool = False, **options: Any
) -> Iterator[VideoResult]:
    """Score each of `paths` and yield its row when it has ended; a full disk ends the batch.

    An output is done when its sidecar names the same settings and the same input. `out` is a folder, made if missing;
    None is beside each video. `options` are other arguments of `score_video`.
    """
    if out is not None:
        if not out.is_dir() and (out.exists() or out.suffix.lower() in VIDEO_SUFFIXES):
            raise UsageError(f"`out` {str(out)!r} names a file: several videos need a folder")
        out.mkdir(parents=True, exist_ok=True)
    first: dict[Path, Path] = {}
    for path in paths:
        folder = out or path.parent
        earlier = first.setdefault(_sidecar(path, folder), path)
        duplicate_of = None if earlier == path else earlier.name
        row = process_video(path, folder, recipe, overwrite, duplicate_of=duplicate_of, **options)
        yield row
        if row.code == errors.DISK:
            return


def process_video(
    path: Path, folder: Path, recipe: Recipe, overwrite: bool = False, *, duplicate_of: str | None, **options: Any
) -> VideoResult:
    """Score `path` into `folder`; `duplicate_of` is an earlier video whose output has the same name."""

    def score() -> tuple[str, str]:
        if duplicate_of is not None:
            raise UsageError(f"its output would have the name of {duplicate_of!r}'s: rename one of the two")
        status = _output_status(path, _sidecar(path, folder), sidecar.settings_digest(recipe.settings))
        if status == "unchanged" and not overwrite:
            return status, ""
        result = score_video(path, folder, recipe=recipe, overwrite=overwrite or status == "stale", **options)
        warnings = (f"warning: {warning}" for warning in result.metadata.warnings)
        return "done", "; ".join([printable(result.path.name), *warnings])

    return attempt(path, score)


def attempt(path: Path, work: Callable[[], tuple[str, str]]) -> VideoResult:
    """Return the result of a video: `work` returns its status and detail, or fails with any error."""
    start = time.perf_counter()
    code, trace = errors.OK, ""
    try:
        status, detail = work()
    except Exception as error:
        status, detail, code = "failed", errors.format_error(error), errors.exit_code(error)
        trace = "".join(traceback.format_exception(error))  # the error itself would keep the decoder alive
    return VideoResult(path, status, detail, code, time.perf_counter() - start, trace)


def _sidecar(path: Path, folder: Path) -> Path:
    return folder / f"{path.stem}.v2m.json"


def _output_status(path: Path, sidecar_path: Path, settings_sha256: str) -> str:
    """Return "new", "unchanged", or "stale": v2m's own output of another input or other settings."""
    try:
        record = json.loads(sidecar_path.read_text())
        expected = record["output"]
        output = sidecar_path.parent / Path(expected["file"]).name
        if output.stat().st_size != expected["bytes"] or sidecar.sha256_file(output) != expected["sha256"]:
            return "new"
        stat, source = path.stat(), record["input"]
        same_input = (stat.st_size, stat.st_mtime_ns) == (source["bytes"], source["modified_ns"])
        same_input |= stat.st_size == source["bytes"] and sidecar.sha256_file(path) == source["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return "new"
    return "unchanged" if same_input and record["settings_sha256"] == settings_sha256 else "stale"


def format_table(rows: Sequence[VideoResult]) -> str:
    """Format the rows as text, failures with their reason."""
    names = [printable(row.path.name) for row in rows]
    facts = [f"{row.status:<9}  {row.seconds:6.1f} s  {row.detail}" for row in rows]
    lines = [f"{name:<{max(map(len, names))}}  {text}" for name, text in zip(names, facts, strict=True)]
    counts = Counter(row.status for row in rows)
    return "\n".join([*lines, ", ".join(f"{count} {status}" for status, count in counts.items())])
