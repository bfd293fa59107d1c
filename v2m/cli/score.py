"""The command line of `infer.py`: recipe and flags in, one line and an exit code out."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from v2m.core import errors
from v2m.core.errors import UsageError
from v2m.pipeline.arguments import Arguments, parse

_terminate_requested = threading.Event()  # to end


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code; every error is one line."""
    _terminate_requested.clear()
    signal.signal(signal.SIGTERM, _terminate)
    _open_standard_streams()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it speaks of its caches
    try:
        _check_cwd()
        code = _run(parse(argv))
        sys.stdout.flush()
        return code
    except BaseException as error:
        code = errors.exit_code(error)
        if code == errors.OK:
            return code
        if code == errors.SIGPIPE:
            _drop_standard_streams()
            return code
        if "--debug" in argv:
            traceback.print_exc()
        sys.stderr.write(f"infer.py: {errors.format_error(error)}\n")
        return code


def _open_standard_streams() -> None:
    """Open standard streams that are closed, or the next opened file would take their number."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes


def _drop_standard_streams() -> None:
    """Discard what the streams still buffer; it would raise once more when Python exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _check_cwd() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been deleted: change to another one") from None


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a signal handler
    _terminate_requested.set()
    raise SystemExit(errors.SIGTERM)


def _run(request: Arguments) -> int:
    from v2m.core import progress
    from v2m.pipeline.batch import is_folder, videos_in

    stages = progress.no_progress if request.quiet else progress.tqdm_progress
    provenance = {"recipe": request.recipe, "settings": request.settings}
    first, *more = request.videos
    if more or is_folder(first):
        return _run_batch(request, videos_in(request.videos), provenance)
    from v2m.pipeline.score import score_video

    result = score_video(
        first, request.out, overwrite=request.overwrite, provenance=provenance, stages=stages,
        **request.arguments,
    )  # fmt: skip
    for warning in result.metadata.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.write(_summary(result.record) + "\n")
    return errors.OK


def _summary(record: Mapping[str, Any]) -> str:
    from v2m.pipeline.outputs import printable

    out = Path(record["output"]["file"])
    shown = min(os.path.relpath(out), str(out), key=len)
    span = record["range"]["end"] - record["range"]["start"]
    facts = [f"{span:.1f} s of music", f"{record['mix']['loudness']:.1f} LUFS"] if record["mix"]["loudness"] else []
    met = record["alignment"]
    if met:
        chance = met["chance"] * met["n"]
        facts.append(f"{round(met['hits'] * met['n'])} of {met['n']} cuts on a beat ({chance:.1f} by chance)")
    facts.append(f"in {sum(record['seconds'].values()):.1f} s")
    return f"wrote {printable(shown)} and {printable(out.with_suffix('.json').name)}: {', '.join(facts)}"


def _run_batch(request: Arguments, paths: Sequence[Path], provenance: dict[str, Any]) -> int:
    from tqdm import tqdm

    from v2m.pipeline import batch

    rows: list[batch.VideoResult] = []
    work = batch.process_videos(
        paths, request.out, request.settings, request.overwrite, provenance=provenance, **request.arguments
    )
    try:
        for row in tqdm(work, total=len(paths), desc="videos", unit="video", disable=request.quiet or None):
            rows.append(row)
            if request.debug:
                sys.stderr.write(row.trace)
            if (
                _terminate_requested.is_set()
            ):  # what a signal raised is lost where it came while something was tidied up
                raise SystemExit(errors.SIGTERM)
    finally:
        if rows:
            rows += [batch.VideoResult(path, "not done") for path in paths[len(rows) :]]
            sys.stdout.write(batch.table(rows) + "\n")
    codes = {row.code for row in rows}
    if errors.DISK in codes:
        return errors.DISK
    return errors.BATCH if codes != {errors.OK} else errors.OK
