"""Scoring of many videos: finished ones are left alone, and a failure does not stop the others."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from v2m.core import errors
from v2m.core.atomic import claim, name_outputs
from v2m.core.engine import Engine, SerialEngine
from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.types import Controls
from v2m.media.c2pa_manifest import C2paCredentials
from v2m.media.folder import FOLDER_SUFFIXES, is_folder_video
from v2m.media.video import VIDEO_SUFFIXES
from v2m.pipeline import licensing, sidecar
from v2m.pipeline.outputs import printable
from v2m.pipeline.recipes import Recipe
from v2m.pipeline.result import ScoreResult
from v2m.pipeline.score import score_video

CLAIMED = "claimed"  # the status of a video that another run works on
POLL_S = 0.5
logger = logging.getLogger(__name__)


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
            inside = sorted(file for file in path.iterdir() if is_folder_video(file)) if is_folder(path) else [path]
        except PermissionError:
            raise InvalidInputError("permission", f"{str(path)!r} may not be read; change its permissions") from None
        if not inside:
            raise InvalidInputError("no_videos", f"{str(path)!r} holds no videos ({FOLDER_SUFFIXES})")
        videos += inside
    return list(dict.fromkeys(videos))


def is_folder(path: Path) -> bool:
    """Return False where that cannot be known; `media.video.open` then says why."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises in a folder that may not be entered


def process_videos(
    paths: Sequence[Path],
    out: Path | None,
    recipe: Recipe,
    overwrite: bool = False,
    *,
    engine: Engine | None = None,
    **options: Any,
) -> Iterator[VideoResult]:
    """Score each of `paths` and yield its row when it has ended; a full disk ends the batch.

    An output is done when its sidecar names the same settings and the same input. Videos that another run works on come
    last. `out` is a folder, made if missing; None is beside each video. `engine` scores them in other processes, whose
    machines share the folders. `options` are other arguments of `score_video`.
    """
    if out is not None:
        if not out.is_dir() and (out.exists() or out.suffix.lower() in VIDEO_SUFFIXES):
            raise UsageError(f"`out` {str(out)!r} names a file: several videos need a folder")
        out.mkdir(parents=True, exist_ok=True)
    licensing.check_recipe(recipe, *recipe.plugins, options.get("controls") or Controls())
    recipe = name_signer(recipe, options.get("c2pa"))
    names = name_outputs({path: out or path.parent for path in paths})
    claimed: list[Path] = []
    engine = engine or SerialEngine()
    for waits, batch in ((False, paths), (True, claimed)):
        load = partial(_load_worker, recipe, overwrite, waits=waits, **options)
        for row in engine.map(load, [(path, names[path]) for path in batch], _lost_result):
            if row.status == CLAIMED:
                claimed.append(row.path)
                continue
            yield row
            if row.code == errors.DISK:
                return


def name_signer(recipe: Recipe, c2pa: C2paCredentials | None) -> Recipe:
    """Return a recipe whose settings name the certificate.

    So an output that was signed with another one, or not at all, is stale.
    """
    if c2pa is None:
        return recipe
    return replace(recipe, settings={**recipe.settings, "c2pa_certificate_sha256": c2pa.sha256()})


def _load_worker(recipe: Recipe, overwrite: bool, **options: Any) -> Callable[[tuple[Path, Path]], VideoResult]:
    """Return the function that scores one video to a path; the recipe's objects hold the models."""
    return lambda job: process_video(*job, recipe, overwrite, **options)


def _lost_result(job: tuple[Path, Path], reason: str) -> VideoResult:
    return VideoResult(job[0], "failed", f"out of memory: {reason}", errors.MEMORY)


def process_video(
    path: Path, out: Path, recipe: Recipe, overwrite: bool = False, *, waits: bool = True, **options: Any
) -> VideoResult:
    """Score `path` to `out`, a path up to `.v2m`; wait for another run, or return status `CLAIMED`."""

    def score() -> tuple[str, str]:
        with claim(out) as is_free:
            status = _output_status(path, out, sidecar.settings_digest(recipe.settings))
            if status == "unchanged" and not overwrite:
                return status, ""
            if not is_free:
                return CLAIMED, ""
            result = score_video(path, out, recipe=recipe, overwrite=overwrite or status == "stale", **options)
        warnings = (f"warning: {warning}" for warning in result.metadata.warnings)
        return "done", "; ".join([printable(result.path.name), *warnings])

    row = attempt(path, score)
    if row.status == CLAIMED and waits:
        logger.warning("%s: another run works on it and is waited for", printable(path.name))
    while row.status == CLAIMED and waits:
        time.sleep(POLL_S)
        row = attempt(path, score)
    return row


def score_one(path: Path, out: Path | None, **options: Any) -> ScoreResult:
    """Score a video as `score_video`. Raise UsageError where another run writes the same output."""
    folder = path.parent if out is None else out if is_folder(out) else None
    name = Path(out or "").with_suffix("") if folder is None else name_outputs({path: folder})[path]
    with claim(name) as is_free:
        if not is_free:
            raise UsageError(f"another run is writing {name.name!r}: let it end, or give another `out`")
        return score_video(path, out, **options)


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


def _output_status(path: Path, out: Path, settings_sha256: str) -> str:
    """Return "new", "unchanged", or "stale": v2m's own output of another input or other settings."""
    sidecar_path = out.with_name(f"{out.name}.json")
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
