"""The command line of `infer.py`: recipe and flags in, one line and an exit code out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v2m.cli.runner import exit_if_terminated, run_command, with_flags
from v2m.core import errors
from v2m.core.errors import UsageError
from v2m.pipeline.arguments import Arguments, parse

FLAGS = {"out": "--out", "source": "--inpaint-source"}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it speaks of its caches
    return run_command(_run, argv, name="infer.py", flags=FLAGS)


def _run(argv: Sequence[str]) -> str | int:
    from v2m.core import progress
    from v2m.pipeline.batch import is_folder, videos_in

    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been deleted: change to another one") from None
    request = parse(argv)
    provenance = {"recipe": request.recipe, "settings": request.settings}
    first, *more = request.videos
    if more or is_folder(first):
        return _run_batch(request, videos_in(request.videos), provenance)
    from v2m.pipeline.score import score_video

    stages = progress.no_progress if request.quiet else progress.tqdm_progress
    result = score_video(
        first, request.out, overwrite=request.overwrite, provenance=provenance, stages=stages, **request.arguments
    )
    for warning in result.metadata.warnings:
        sys.stderr.write(f"warning: {with_flags(warning, FLAGS)}\n")
    return _summary(result.record)


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
            rows.append(row._replace(detail=with_flags(row.detail, FLAGS, row.code)))
            if request.debug:
                sys.stderr.write(row.trace)
            exit_if_terminated()
    finally:
        if rows:
            rows += [batch.VideoResult(path, "not done") for path in paths[len(rows) :]]
            sys.stdout.write(batch.table(rows) + "\n")
    codes = {row.code for row in rows}
    if errors.DISK in codes:
        return errors.DISK
    return errors.BATCH if codes != {errors.OK} else errors.OK
