"""Preparation of videos with music, or music alone, as shards: `v2m prepare VIDEOS… OUT`.

The same inputs and settings give the same bytes, whatever the interruptions and the number of processes.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.core import errors
from v2m.core.engine import Engine, SerialEngine
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.licenses import check_commercial_use
from v2m.core.processes import exit_with_parent
from v2m.core.protocols import Tagger
from v2m.data import progress_log, writer
from v2m.data.config import PrepareConfig
from v2m.data.progress_log import PrepareRecord
from v2m.data.schema import Manifest
from v2m.data.sources import Source, local_source

if TYPE_CHECKING:
    from v2m.data.encode import SampleEncoder
    from v2m.taggers.base import TaggerBase

LOG_INTERVAL_S = 60.0  # between two lines of progress in a log
MAX_PROCESSES, CORES_PER_PROCESS = 4, 4  # by default: each process holds all encoders, and uses threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareJob:
    """Options of a run; `tagger_config` is the tagger's config as plain values, for the settings file."""

    out: Path
    config: PrepareConfig
    tagger: Tagger
    tagger_config: Any
    device: str = "auto"
    num_processes: int | None = None
    shard_samples: int = 100
    shard_mb: float = 256.0
    quiet: bool = False

    def __post_init__(self) -> None:
        processes = 1 if self.num_processes is None else self.num_processes
        counts = {"processes": processes, "shard_samples": self.shard_samples, "shard_mb": self.shard_mb}
        problems = [f"{name} {value:g} must be above 0" for name, value in counts.items() if not value > 0]
        if problems:
            raise UsageError("; ".join(problems))


def check_licenses(config: PrepareConfig, tagger: TaggerBase) -> None:
    """Raise LicenseError where a license of encoders or tagger forbids commercial use, or is unknown."""
    from v2m.data.encode import component_names
    from v2m.pretrained.licenses import ask_hub, model_component

    models = [model_component(kind.replace("_", " "), name, kind) for kind, name in component_names(config).items()]
    check_commercial_use(map(ask_hub, [*models, *([] if config.unpaired else tagger.components())]))


def prepare(
    sources: Sequence[Source], job: PrepareJob, engine: Engine | None = None
) -> tuple[Manifest, list[PrepareRecord]]:
    """Encode new or changed videos and update shards and manifest; the manifest is written last.

    The processes are those of `engine`, whose machines share the folders; None is `job.num_processes` of this machine.
    Raises UsageError where the folder holds something else or was made with other settings, InvalidInputError where all
    videos are left out, DependencyError where weights are missing or broken.
    """
    progress_log.check_output_dir(job.out)  # before gigabytes are fetched
    settings = _dataset_settings(job)
    with progress_log.lock_output_dir(job.out):
        progress_log.record_settings(job.out, settings)
        writer.remove_partial(job.out)
        records, in_shards = progress_log.read_records(job.out), writer.locate_parts(job.out).keys()
        new = [s for s in sources if not progress_log.is_up_to_date(records.get(s.key), s, job.out, in_shards)]
        for record in _encode_all(new, job, engine):
            progress_log.append_record(job.out, record)
            records[record.key] = record
        current = [records[source.key] for source in sources]
        return _finalize(current, job), current


def _finalize(records: Sequence[PrepareRecord], job: PrepareJob) -> Manifest:
    """Write shards, records, and last the manifest; then remove what none of them names any more."""
    parts = [record.part for record in records if record.part is not None]
    reasons = Counter(record.drop_reason for record in records if record.part is None)
    if not parts:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        problem = f"{counts}; {records[0].source}: {records[0].detail}"
        raise InvalidInputError("nothing_kept", f"no video or music can be learned from: {problem}")
    previous, parts_dir = _read_manifest(job.out), job.out / writer.PARTS_DIR
    known = {shard.file: shard for shard in previous.shards} if previous else {}
    shards = writer.assemble_shards(job.out, parts, known, job.shard_samples, job.shard_mb)
    progress_log.replace_records(job.out, records)
    manifest = previous or _read_manifest(parts_dir) or _load_encoder(job).manifest()
    manifest = replace(manifest, shards=tuple(shards), dropped=dict(sorted(reasons.items())))
    if manifest != previous:
        manifest.write(job.out)
    current = {shard.file for shard in shards}
    for path in [*job.out.glob("*.tar"), *parts_dir.glob("*")]:
        if path.name not in current:
            path.unlink()
    with suppress(OSError):
        parts_dir.rmdir()
    return manifest


def _read_manifest(folder: Path) -> Manifest | None:
    with suppress(DependencyError):
        return Manifest.read(folder)


def _dataset_settings(job: PrepareJob) -> dict[str, Any]:
    """Return all that the samples depend on: the config, the tagger, and the hashes of the weights."""
    from v2m.data.encode import component_names, fetch_component
    from v2m.pretrained import weights

    settings = asdict(job.config) | {"tagger": job.tagger_config}
    if job.config.vocals == "keep":
        del settings["separator"]
    if job.config.unpaired:
        del settings["tagger"]  # which is not asked
    else:
        del settings["unpaired"]
    for kind, name in component_names(job.config).items():
        hashes = weights.sha256_files(fetch_component(name, kind).folder)
        settings[f"{kind}_sha256"] = progress_log.sha256_json(hashes)
    return settings


def _load_encoder(job: PrepareJob) -> SampleEncoder:
    from v2m.core.lazy_model import choose_device
    from v2m.data.encode import SampleEncoder

    encoder = SampleEncoder.load(job.config, job.tagger, choose_device(job.device))
    encoder.manifest().write(job.out / writer.PARTS_DIR)  # spares loading the encoders to finish an interrupted run
    return encoder


def _encode_all(new: Sequence[Source], job: PrepareJob, engine: Engine | None) -> Iterator[PrepareRecord]:
    from tqdm import tqdm

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(job.num_processes or max(1, min(MAX_PROCESSES, cores // CORES_PER_PROCESS)), len(new))
    terminal = shutil.get_terminal_size()  # never 0, which some terminals report and where tqdm would draw nothing
    interval = 0.1 if sys.stderr.isatty() else LOG_INTERVAL_S
    name = "music" if job.config.unpaired else "videos"
    with tqdm(
        total=len(new), desc=name, unit="file", disable=job.quiet or not new, ncols=terminal.columns,
        nrows=terminal.lines, mininterval=interval, maxinterval=max(10.0, interval),
    ) as bar:  # fmt: skip
        if engine is None and count > 1:
            records = _run_pool(new, job, count, max(1, cores // count))
        else:
            records = (engine or SerialEngine()).map(functools.partial(_load_worker, job), new, _lost_record)
        for record in records:
            bar.update()
            yield record


def _load_worker(job: PrepareJob) -> Callable[[Source], PrepareRecord]:
    """Load the encoders; return the function that encodes and writes one video with them."""
    return functools.partial(_encode_video, encoder=_load_encoder(job), out=job.out)


def _lost_record(source: Source, reason: str) -> PrepareRecord:
    logger.warning("%s: %s", source.name, reason)
    return PrepareRecord(source.name, source.key, source.file_state(), drop_reason="failed", detail=reason)


def _run_pool(new: Sequence[Source], job: PrepareJob, count: int, threads: int) -> Iterator[PrepareRecord]:
    context = multiprocessing.get_context("spawn")  # forked, torch's threads would be lost
    pool = ProcessPoolExecutor(count, context, _init_worker, (job, threads))
    try:
        for future in as_completed([pool.submit(_encode_in_worker, source) for source in new]):
            yield future.result()
    except BrokenProcessPool:
        problem = f"one of {count} processes was ended, likely for want of memory"
        raise MemoryError(f"{problem}: give a lower `num_processes`") from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


_worker: Callable[[], Callable[[Source], PrepareRecord]] | None = None  # of a process of the pool


def _init_worker(job: PrepareJob, threads: int) -> None:
    """Set up a worker process, which ends when its parent does; its first video loads the encoders."""
    global _worker  # noqa: PLW0603 - the state of this process alone
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this
    exit_with_parent()
    torch.set_num_threads(threads)
    _worker = functools.cache(lambda: _load_worker(job))


def _encode_in_worker(source: Source) -> PrepareRecord:
    assert _worker is not None
    return _worker()(source)


def _encode_video(source: Source, encoder: SampleEncoder, out: Path) -> PrepareRecord:
    """Encode and write one video; a fault of this video alone never stops the others."""
    from v2m.data.encode import FilteredOutError

    state = source.file_state()
    try:
        with local_source(source) as local:
            part = writer.write_part(out, source.key, encoder.encode(local), encoder.manifest())
        return PrepareRecord(source.name, source.key, state, part)
    except FilteredOutError as error:
        return PrepareRecord(source.name, source.key, state, drop_reason=error.reason, detail=error.detail)
    except InvalidInputError as error:  # its address could not be read; the next run tries again
        logger.warning("%s: %s", source.name, error)
        return PrepareRecord(source.name, source.key, state, drop_reason="failed", detail=str(error))
    except Exception as error:
        if errors.exit_code(error) != errors.BUG:
            raise
        logger.warning("%s: %s", source.name, errors.format_error(error))
        detail = "".join(traceback.format_exception(error))[-2000:]
        return PrepareRecord(source.name, source.key, state, drop_reason="failed", detail=detail)


def format_report(manifest: Manifest, records: Sequence[PrepareRecord]) -> str:
    """Return a table of kept and dropped videos, or music, with an example of each reason."""
    kept = [record for record in records if record.part is not None]
    lines = [f"{'kept':<15} {len(kept):>7}  {manifest.num_samples} samples, {manifest.duration / 3600:.2f} h"]
    for reason, count in sorted(manifest.dropped.items(), key=lambda item: (-item[1], item[0])):
        first = next(record for record in records if record.drop_reason == reason)
        detail = (first.detail.strip().splitlines() or [""])[-1][:90]
        lines.append(f"{reason:<15} {count:>7}  such as {ascii(first.source)[1:-1]}: {detail}")
    size = sum(shard.num_bytes for shard in manifest.shards)
    note = ", of music without video" if manifest.unpaired else ""
    return "\n".join([*lines, f"{len(manifest.shards)} shards{note}, {size / 1e6:.1f} MB"])
