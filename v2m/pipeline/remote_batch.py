"""Scoring of videos that lie at addresses, or whose outputs do: a local copy in, finished files out.

The sidecar is written last: where it is and fits, the other files are whole. Before them it says for which video they
are unfinished, so that the next run may replace what an ended one has left. Two runs on the same outputs both do the
work; each file is that of one of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from v2m.core import errors, remote
from v2m.core.atomic import name_outputs
from v2m.core.engine import Engine, SerialEngine
from v2m.core.errors import InvalidInputError, UsageError
from v2m.core.remote import RemoteFile
from v2m.core.types import Controls
from v2m.media.folder import is_video_name
from v2m.media.video import VIDEO_SUFFIXES
from v2m.pipeline import batch, licensing, sidecar
from v2m.pipeline.batch import VideoResult
from v2m.pipeline.outputs import printable
from v2m.pipeline.recipes import Recipe
from v2m.pipeline.score import score_video

Input = Path | RemoteFile


class _Job(NamedTuple):
    """A video, the folder of its outputs, a path or an address, and their name up to the suffix."""

    video: Input
    folder: str
    stem: str


def find_videos(names: Sequence[str]) -> list[Input]:
    """Return the named files and the videos directly in each folder, local or at an address, each once."""
    videos: list[Input] = []
    for name in names:
        if not remote.is_address(name):
            videos += batch.find_videos([Path(name)])
            continue
        files = remote.list_files(name)
        prefix = f"{name.rstrip('/')}/"
        inside = [
            file
            for file in files
            if file.address == name
            or (is_video_name(PurePosixPath(file.name)) and "/" not in file.address.removeprefix(prefix))
        ]
        if not inside:
            where = remote.printable_address(name)
            raise InvalidInputError("no_videos", f"{where!r} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
        videos += inside
    return list(dict.fromkeys(videos))


def result_path(video: Input) -> Path:
    """Return what stands for a video in results, another path for each video."""
    return video if isinstance(video, Path) else _as_path(video.address)


def _as_path(address: str) -> Path:
    scheme, _, rest = remote.without_query(address).partition("://")
    return Path("/", scheme, _query_digest(address), rest)


def _query_digest(address: str) -> str:
    """Return a short digest of the query of an address, which may be secret; "" without one."""
    query = address.removeprefix(remote.without_query(address))
    return hashlib.sha256(query.encode()).hexdigest()[:8] if query else ""


def _source(video: Input) -> dict[str, str]:
    """Return what names a video in its sidecar."""
    if isinstance(video, Path):
        return {"file": os.path.abspath(video)}  # noqa: PTH100 - as `media.video.open` has it
    digest = _query_digest(video.address)
    return {"file": remote.printable_address(video.address), **({"query_digest": digest} if digest else {})}


def process_videos(
    videos: Sequence[Input],
    out: str | None,
    recipe: Recipe,
    overwrite: bool = False,
    *,
    engine: Engine | None = None,
    **options: Any,
) -> Iterator[VideoResult]:
    """Score each video and yield its row when it has ended; `out` is a folder or an address.

    An output is done when its sidecar names the same settings and the same version of the input. That of another video
    is not replaced without `overwrite`.
    """
    if out is not None and remote.is_address(out):
        remote.check_address(out)  # before any work
    licensing.check_recipe(recipe, *recipe.plugins, options.get("controls") or Controls())
    recipe = batch.name_signer(recipe, options.get("c2pa"))
    load = partial(_load_worker, recipe, overwrite, **options)
    for row in (engine or SerialEngine()).map(load, _plan(videos, out), _lost_result):
        yield row
        if row.code == errors.DISK:
            return


def _plan(videos: Sequence[Input], out: str | None) -> list[_Job]:
    folders = {video: _parent(video) if out is None else out for video in videos}
    paths = {
        result_path(video): _as_path(folder) if remote.is_address(folder) else Path(folder)
        for video, folder in folders.items()
    }
    names = name_outputs(paths)
    return [_Job(video, folder, names[result_path(video)].name) for video, folder in folders.items()]


def _parent(video: Input) -> str:
    return str(video.parent) if isinstance(video, Path) else remote.without_query(video.address).rpartition("/")[0]


def _load_worker(recipe: Recipe, overwrite: bool, **options: Any) -> Callable[[_Job], VideoResult]:
    """Return the function that scores one video; the recipe's objects hold the models."""
    return lambda job: batch.attempt(result_path(job.video), partial(_score, job, recipe, overwrite, options))


def _lost_result(job: _Job, reason: str) -> VideoResult:
    return VideoResult(result_path(job.video), "failed", f"out of memory: {reason}", errors.MEMORY)


def _score(job: _Job, recipe: Recipe, overwrite: bool, options: dict[str, Any]) -> tuple[str, str]:
    """Score a video; return its status and the detail of its result."""
    status = _output_status(job, sidecar.settings_digest(recipe.settings))
    if status == "unchanged" and not overwrite:
        return status, ""
    may_replace = overwrite or status == "stale"
    if not may_replace:
        _check_absent(job.folder, [f"{job.stem}.json"])  # that of another video, before the work
    with _copied(job.video) as path, tempfile.TemporaryDirectory(prefix="v2m-") as folder:
        result = score_video(path, Path(folder, job.stem), recipe=recipe, **options)
        if isinstance(job.video, RemoteFile):
            source = {**_source(job.video), "version": job.video.version, "modified_ns": None}
            record = {**result.record, "input": {**result.record["input"], **source}}
            sidecar.write(record, result.path.with_suffix(".json"))
        _publish(Path(folder), job, may_replace=may_replace)
    warnings = (f"warning: {warning}" for warning in result.metadata.warnings)
    return "done", "; ".join([printable(result.path.name), *warnings])


@contextmanager
def _copied(video: Input) -> Iterator[Path]:
    if isinstance(video, Path):
        yield video
        return
    with remote.local_copy(video) as path:
        yield path


def _publish(folder: Path, job: _Job, *, may_replace: bool) -> None:
    """Write all files of `folder` to the job's, the sidecar last and, as unfinished, first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    files.sort(key=lambda path: (path.suffix == ".json", path))
    targets = {path: remote.join(job.folder, path.relative_to(folder).as_posix()) for path in files}
    if not may_replace:
        _check_absent(job.folder, [path.relative_to(folder).as_posix() for path in files])
    unfinished = folder / "unfinished"
    sidecar.write({"unfinished": _source(job.video)}, unfinished)
    remote.write_file(unfinished, remote.join(job.folder, f"{job.stem}.json"))
    for path, target in targets.items():
        remote.write_file(path, target)


def _check_absent(folder: str, names: Sequence[str]) -> None:
    present = [name for name in names if remote.find_file(remote.join(folder, name)) is not None]
    if present:
        raise UsageError(f"{', '.join(present)} exists already: give `overwrite=True` or another `out`")


def _output_status(job: _Job, settings_sha256: str) -> str:
    """Return "new", "unchanged", or "stale": this video's own output, to be made again."""
    own = _source(job.video)
    try:
        record = json.loads(remote.read_bytes(remote.join(job.folder, f"{job.stem}.json")))
        if record.get("unfinished") == own:
            return "stale"
        source, expected = record["input"], record["output"]
        output = remote.find_file(remote.join(job.folder, PurePosixPath(expected["file"]).name))
        if output is None or output.size != expected["bytes"]:
            return "new"
        same_source = own == {key: source[key] for key in ("file", "query_digest") if key in source}
        if isinstance(job.video, RemoteFile):
            version = (own["file"], job.video.size, job.video.version)  # a new signature changes the query alone
            same_input = bool(job.video.version) and version == (source["file"], source["bytes"], source.get("version"))
        else:
            stat = job.video.stat()
            same_input = stat.st_size == source["bytes"] and (
                (same_source and stat.st_mtime_ns == source["modified_ns"])
                or sidecar.sha256_file(job.video) == source["sha256"]
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "new"
    if not (same_source or same_input):
        return "new"  # and not this video's to replace
    return "unchanged" if same_input and record["settings_sha256"] == settings_sha256 else "stale"
