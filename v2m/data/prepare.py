"""Videos with their music → a folder of shards: `v2m prepare VIDEOS… OUT`.

The same inputs and settings give the same bytes, however often the work was interrupted and by however many processes
it was done.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.core import errors
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.protocols import Tagger
from v2m.data import progress_log, writer
from v2m.data.config import Settings
from v2m.data.progress_log import Done
from v2m.data.schema import MANIFEST, Manifest
from v2m.data.sources import Source

if TYPE_CHECKING:
    from v2m.data.encode import Encoder

LOGGED = 60.0  # seconds between two lines of progress that nobody watches
MOST, CORES = 4, 4  # processes that are started unasked, and cores for each: it holds all encoders, and uses threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What is to be done: `tagger` names music by the picture, `chosen` is how that is said in the settings."""

    out: Path
    settings: Settings
    tagger: Tagger
    chosen: Any
    device: str = "auto"
    processes: int | None = None
    shard_samples: int = 100
    shard_mb: float = 256.0
    quiet: bool = False

    def __post_init__(self) -> None:
        counts = {"processes": self.processes or 1, "shard_samples": self.shard_samples, "shard_mb": self.shard_mb}
        problems = [f"{name} {value:g} must be above 0" for name, value in counts.items() if not value > 0]
        problems += ["processes 0 must be above 0"] if self.processes == 0 else []
        if problems:
            raise UsageError("; ".join(problems))


def prepare(sources: Sequence[Source], work: Work) -> tuple[Manifest, list[Done]]:
    """Encodes what is new and writes shards and manifest anew where that changes them; the latter comes last.

    Raises:
        UsageError: The folder holds something else, or was made with other settings.
        RefusedError: Nothing is kept.
        MissingError: Weights are missing or broken.
    """
    progress_log.check(work.out)  # before gigabytes are fetched
    identity = _identity(work)
    with progress_log.locked(work.out):
        progress_log.claim(work.out, identity)
        writer.sweep(work.out)
        known, held = progress_log.read(work.out), set(writer.places(work.out))
        new = [each for each in sources if not progress_log.still_so(known.get(each.key), each, work.out, held)]
        for done in _encoded(new, work):
            progress_log.add(work.out, done)
            known[done.key] = done
        every = [known[source.key] for source in sources]
        return _published(every, work), every


def _published(every: Sequence[Done], work: Work) -> Manifest:
    """Shards, ledger, and last the manifest; then what none of them names any more is removed."""
    parts = [done.part for done in every if done.part is not None]
    reasons = Counter(done.dropped for done in every if done.part is None)
    if not parts:
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        first = next(done for done in every)
        raise InvalidInputError("nothing_kept", f"no video can be learnt from: {said}; {first.source}: {first.detail}")
    before = _manifest_in(work.out)
    known = {shard.file: shard for shard in before.shards} if before else {}
    shards = writer.assemble(work.out, parts, known, work.shard_samples, work.shard_mb)
    progress_log.replace(work.out, every)
    manifest = before or _manifest_in(work.out / writer.PARTS) or _encoder(work).manifest()
    manifest = replace(manifest, shards=tuple(shards), dropped=dict(sorted(reasons.items())))
    if manifest != before:
        _write_manifest(manifest, work.out)
    kept = {shard.file for shard in shards}
    for path in work.out.glob("*.tar"):
        if path.name not in kept:
            path.unlink()
    for path in (work.out / writer.PARTS).glob("*"):
        path.unlink()
    with suppress(OSError):
        (work.out / writer.PARTS).rmdir()
    return manifest


def _manifest_in(folder: Path) -> Manifest | None:
    try:
        return Manifest.read(folder)
    except DependencyError:
        return None


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    """Whole or not at all."""
    with writer.whole(folder / MANIFEST) as file:
        file.write(manifest.as_json().encode())


def _identity(work: Work) -> dict[str, Any]:
    """What the samples depend on: settings, tagger, and the very weights."""
    from v2m.data.encode import fetched, named
    from v2m.pretrained import weights

    models = {
        kind: progress_log.digest(weights.digests(fetched(name, kind).folder))
        for kind, name in named(work.settings).items()
    }
    settings = asdict(work.settings)
    if work.settings.vocals == "keep":
        del settings["separator"]
    return {**settings, "tagger": work.chosen, **{f"{kind}_sha256": each for kind, each in models.items()}}


def _encoder(work: Work) -> Encoder:
    from v2m.core.lazy_model import choose_device
    from v2m.data.encode import Encoder

    encoder = Encoder.load(work.settings, work.tagger, choose_device(work.device))
    _write_manifest(encoder.manifest(), work.out / writer.PARTS)  # of no shards yet: whoever writes them need not load
    return encoder


def _encoded(new: Sequence[Source], work: Work) -> Iterator[Done]:
    """How each of them ended, in any order."""
    from tqdm import tqdm

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(work.processes or max(1, min(MOST, cores // CORES)), len(new))
    room = shutil.get_terminal_size()  # never 0, which some terminals say and where tqdm would draw nothing
    often = 0.1 if sys.stderr.isatty() else LOGGED
    shown = {"ncols": room.columns, "nrows": room.lines, "mininterval": often, "maxinterval": max(10.0, often)}
    with tqdm(total=len(new), desc="videos", unit="video", disable=work.quiet or not new, **shown) as bar:
        for done in _alone(new, work) if count <= 1 else _together(new, work, count, max(1, cores // count)):
            bar.update()
            yield done


def _alone(new: Sequence[Source], work: Work) -> Iterator[Done]:
    if new:
        encoder = _encoder(work)
        for source in new:
            yield _one(source, encoder, work.out)


def _together(new: Sequence[Source], work: Work, count: int, threads: int) -> Iterator[Done]:
    context = multiprocessing.get_context("spawn")  # forked, torch's threads would be lost
    pool = ProcessPoolExecutor(count, context, _begin, (work, threads))
    try:
        for future in as_completed([pool.submit(_in_worker, source) for source in new]):
            yield future.result()
    except BrokenProcessPool:
        raise MemoryError(
            f"one of {count} processes was ended, likely for want of memory: give fewer --processes"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


_here: Callable[[], tuple[Encoder, Path]] | None = None  # of a worker


def _begin(work: Work, threads: int) -> None:
    """Makes a worker, which ends when its parent does; what it lacks is told by its first video."""
    global _here  # noqa: PLW0603 - what a worker of a pool has is there alone
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _here = functools.cache(lambda: (_encoder(work), work.out))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(errors.SIGTERM)


def _in_worker(source: Source) -> Done:
    assert _here is not None
    return _one(source, *_here())


def _one(source: Source, encoder: Encoder, out: Path) -> Done:
    """Encodes and writes one video. What is wrong with it alone never stops the others."""
    from v2m.data.filters import DropError

    state = source.state()
    try:
        part = writer.write_part(out, source.key, encoder.samples(source), encoder.manifest())
        return Done(source.name, source.key, state, part)
    except DropError as error:
        return Done(source.name, source.key, state, dropped=error.reason, detail=error.detail)
    except Exception as error:
        if errors.exit_code(error) != errors.BUG:
            raise
        logger.warning("%s: %s", source.name, errors.format_error(error))
        detail = "".join(traceback.format_exception(error))[-2000:]
        return Done(source.name, source.key, state, dropped="failed", detail=detail)


def report(manifest: Manifest, every: Sequence[Done]) -> str:
    """What was kept and what was left out, with an example of each reason, as a table."""
    kept = [done for done in every if done.part is not None]
    lines = [f"{'kept':<15} {len(kept):>7}  {manifest.samples} samples, {manifest.seconds / 3600:.2f} h"]
    for reason, count in sorted(manifest.dropped.items(), key=lambda item: (-item[1], item[0])):
        first = next(done for done in every if done.dropped == reason)
        detail = (first.detail.strip().splitlines() or [""])[-1][:90]
        lines.append(f"{reason:<15} {count:>7}  such as {ascii(first.source)[1:-1]}: {detail}")
    size = sum(shard.size for shard in manifest.shards)
    return "\n".join([*lines, f"{len(manifest.shards)} shards, {size / 1e6:.1f} MB"])
