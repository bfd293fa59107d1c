"""Jobs of the page and the service, done one at a time by a worker process."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from v2m.core import errors
from v2m.core.errors import UsageError
from v2m.core.processes import exit_with_parent
from v2m.core.protocols import MusicGenerator
from v2m.core.types import Controls, ProgressFn
from v2m.media.ffmpeg import FFmpegError, file_url, input_arguments, open_media, run_ffmpeg
from v2m.media.mux import PREVIEW_ARGUMENTS
from v2m.pipeline.result import Extras

POLL_S = 0.2
MIN_PROGRESS = 0.005  # of a stage; smaller steps are not sent
TERMINATION_S = 2.0  # that a worker gets to end what it has started
PLAYABLE = {(".mp4", "h264"), (".webm", "vp8"), (".webm", "vp9")}  # in every usual browser, with 8 bits and 4:2:0
PREVIEW_HEIGHT = 480  # pixels, at most
TEXTS = {"tags", "hints"}  # entries of a sidecar without files: a caption may begin with a slash
Event = tuple[str, Any]  # ("stage", its name), ("progress", 0–1), then ("done", JobResult) or ("failed", (line, code))


@dataclass(frozen=True)
class Job:
    """A video to score.

    overrides: of `load_recipe`. out: path up to `.v2m`; None for tags alone. extras: files to write besides; None is
    all that the generator has. previews: whether to write what browsers play where they do not play the output.
    """

    video: Path
    recipe: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    controls: Controls = field(default_factory=Controls)
    out: Path | None = None
    extras: Extras | None = None
    previews: bool = True


@dataclass(frozen=True)
class CandidateFiles:
    """One candidate. sync: total score 0–1, None where it is the only one. files: all that belong to it.

    beats: (B,) seconds of the video, those of the best candidate. preview: a copy where browsers do not play `video`.
    """

    seed: int
    video: Path
    sync: float | None = None
    beats: tuple[float, ...] = ()
    files: tuple[Path, ...] = ()
    preview: Path | None = None

    @property
    def music(self) -> Path:
        """The WAV before mixing."""
        return self.video.with_suffix(".wav")

    @property
    def report(self) -> Path:
        return self.video.with_suffix(".png")


@dataclass(frozen=True)
class JobResult:
    """Tags, sidecar, and all candidates, the best first. is_playable: whether browsers play the input."""

    tags: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[CandidateFiles, ...] = ()
    is_playable: bool = False


class JobCancelledError(Exception):
    """The job was cancelled."""


class JobError(UsageError):
    """A job that failed. `code`: the exit code that the command would have had."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class WorkerLostError(JobError):
    """The worker process ended during a job, by no wish of the caller."""


def start_process(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    """Start `target(connection, *args)` in a new process; return it and this end of the connection."""
    context = get_context("spawn")
    connection, other_end = context.Pipe()
    process = context.Process(target=target, args=(other_end, *args), daemon=True, name="v2m-worker")
    process.start()
    other_end.close()
    return process, connection


@dataclass
class _Worker:
    process: Any
    connection: Connection
    recipe: str


class JobRunner:
    """Runs one job at a time: the caller makes a second one wait, or it would end the first."""

    def __init__(self, max_minutes: float = 60.0) -> None:
        self.max_minutes = max_minutes
        self._worker: _Worker | None = None
        self._session: str | None = None  # of the job under way
        self._lock = threading.RLock()  # a garbage collector may close an abandoned `run` in a thread that holds it

    def start(self, recipe: str) -> None:
        """Start the process for a recipe, so that the first job need not wait for it."""
        with self._lock:
            worker, abandoned = self._worker, self._session is not None
            if abandoned or worker is None or worker.recipe != recipe or not worker.process.is_alive():
                self._stop()
                self._worker = _Worker(*start_process(run_jobs), recipe)

    def run(self, job: Job, session: str) -> Generator[Event, None, None]:
        """Yield the worker's events of the job, and "waiting" in between; the last is "done".

        Raises JobCancelledError after `cancel`, JobError where the job failed or took too long, WorkerLostError where
        it lost its process.
        """
        self.start(job.recipe)
        with self._lock:
            worker, self._session = self._worker, session
        assert worker is not None
        finished = False
        try:
            for event in self._events(worker, job):
                finished = event[0] == "done"
                yield event
        except UsageError:
            finished = True
            raise
        finally:
            with self._lock:
                if self._worker is worker:
                    self._session = None
                    if not finished:  # nobody listens any more: the unfinished job would delay the next
                        self._stop()

    def _events(self, worker: _Worker, job: Job) -> Iterator[Event]:
        deadline = time.monotonic() + 60 * self.max_minutes
        try:
            worker.connection.send(job)
            while True:
                if not worker.connection.poll(POLL_S):
                    if time.monotonic() > deadline:
                        self.cancel()
                        message = f"it took more than {self.max_minutes:g} minutes and was ended"
                        raise JobError(message, errors.SIGTERM)
                    yield ("waiting", None)
                    continue
                event = worker.connection.recv()
                if event[0] == "failed":
                    raise JobError(*event[1])
                yield event
                if event[0] == "done":
                    return
        except (EOFError, OSError):
            if self._worker is not worker:
                raise JobCancelledError from None
            self.cancel()
            message = "the work was ended by the system, which happens when memory runs out"
            raise WorkerLostError(message, errors.MEMORY) from None

    def cancel(self, session: str | None = None) -> bool:
        """End the job of `session`, or any job, with its process; return whether there was a process."""
        with self._lock:
            if session is not None and session != self._session:
                return False
            running = self._worker is not None
            self._stop()
            return running

    def _stop(self) -> None:
        worker, self._worker, self._session = self._worker, None, None
        if worker is not None:
            worker.process.terminate()
            worker.process.join(TERMINATION_S)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


def run_jobs(connection: Connection) -> None:
    """Do one job after the other until the connection is closed: the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the page decides when to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(errors.SIGTERM))  # which ends a running ffmpeg
    exit_with_parent()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import v2m.pipeline.score  # noqa: F401 - now rather than while somebody waits

    handler = _JobHandler(connection)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", handler.tag(job) if job.out is None else handler.score(job)))
        except (BrokenPipeError, SystemExit):
            return
        except BaseException as error:
            code = errors.exit_code(error)
            if code == errors.BUG:
                logging.getLogger(__name__).exception("while working on %s", job.video.name)
            message = errors.format_error(error)
            for path in filter(None, (job.video, job.out)):  # visitors see no folder of this machine
                message = message.replace(f"{path.parent}/", "")
            connection.send(("failed", (message, code)))


class _JobHandler:
    """The work of the worker process. A generator is kept for the next job with the same settings."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._generator: MusicGenerator | None = None
        self._generator_settings: Any = None

    def tag(self, job: Job) -> JobResult:
        """Return the tagger's tags alone."""
        from v2m.media import video
        from v2m.pipeline.recipes import load_recipe
        from v2m.taggers.base import as_tagger

        recipe = load_recipe(job.recipe, job.overrides)
        clip = video.open(job.video, recipe.limits)
        assert recipe.tagger is not None, "every shipped recipe names one"
        tagger = as_tagger(recipe.tagger)
        with self._stages("Analyzing the picture") as progress:
            tags = tagger.merged_tags(clip, recipe.tags, progress)
        tagger.release()
        return JobResult(tags.to_dict(), is_playable=is_playable(job.video))

    def score(self, job: Job) -> JobResult:
        """Write the video with its music, all extras that the generator has, and each other candidate."""
        from v2m.generators.base import as_generator
        from v2m.media import video
        from v2m.mixing import mixer
        from v2m.pipeline import sidecar
        from v2m.pipeline.recipes import load_recipe
        from v2m.pipeline.score import score_video

        assert job.out is not None, "a job without a file to write asks for the tags alone"
        recipe = load_recipe(job.recipe, job.overrides)
        if self._generator is None or self._generator_settings != recipe.settings["generator"]:
            self._generator, self._generator_settings = recipe.generator, recipe.settings["generator"]
        assert self._generator is not None, "every shipped recipe names one"
        settings = {**recipe.settings, **_control_settings(job.controls)}
        recipe = replace(recipe, generator=self._generator, settings=settings)
        capabilities = as_generator(self._generator).capabilities
        every = Extras("stems" in capabilities, "midi" in capabilities, markers="edl", report=True, wav=True)
        extras = every if job.extras is None else job.extras
        options: dict[str, Any] = {"controls": job.controls, "extras": extras, "stages": self._stages}
        result = score_video(job.video, job.out, recipe=recipe, **options)
        out = result.path
        record = strip_folders(result.record)
        sidecar.write(record, out.with_suffix(".json"))
        beats = tuple(record["range"]["start"] + beat for beat in record["music"]["beats"])
        rest = [path for path in out.parent.rglob("*") if path.is_file() and ".seed" not in path.name]
        files = (out, *sorted(path for path in rest if path != out))
        best, *others = result.candidates
        candidates = [CandidateFiles(best.seed, out, best.sync.get("total"), beats, files)]
        clip, mix = video.open(job.video, recipe.limits), replace(recipe.mix, start=recipe.start, end=recipe.end)
        for number, other in enumerate(others, start=2):
            path = out.with_name(f"{out.stem}.seed{other.seed}{out.suffix}")
            comment = sidecar.container_comment(job.recipe)
            with self._stages(f"Writing take {number} of {len(result.candidates)}") as progress:
                mixer.mix(clip, other.soundtrack.audio, path, mix, comment, False, progress)
            candidate = CandidateFiles(other.seed, path, other.sync.get("total"), beats)
            beside = (candidate.music, candidate.report) if extras.report else (candidate.music,)
            candidates.append(replace(candidate, files=(path, *beside)))
        if job.previews:
            candidates = self._with_previews(candidates, clip.duration)
        return JobResult(record["tags"], record, tuple(candidates))

    def _with_previews(self, candidates: list[CandidateFiles], duration: float) -> list[CandidateFiles]:
        """Write previews where they are needed; the pictures are encoded once."""
        if is_playable(candidates[0].video):
            return candidates
        with self._stages("Writing a preview"):
            previewed: list[CandidateFiles] = []
            for candidate in candidates:
                preview = candidate.video.with_name(f"{candidate.video.stem}.preview.mp4")
                pictures = (previewed[0].preview if previewed else None) or candidate.video
                with suppress(FFmpegError):  # the result is there even so
                    write_preview(candidate.video, pictures, preview, duration)
                previewed.append(replace(candidate, preview=preview if preview.exists() else None))
        return previewed

    @contextmanager
    def _stages(self, name: str) -> Iterator[ProgressFn]:
        self._connection.send(("stage", name))
        sent = 0.0

        def progress(fraction: float) -> None:
            nonlocal sent
            if fraction >= sent + MIN_PROGRESS:
                sent = fraction
                self._connection.send(("progress", min(1.0, fraction)))

        yield progress
        self._connection.send(("progress", 1.0))


def is_playable(path: Path) -> bool:
    """Return whether every usual browser plays the pictures of a file."""
    return (path.suffix.lower(), _plain_codec(path)) in PLAYABLE


def _plain_codec(path: Path) -> str | None:
    """Return the codec of a file's pictures.

    None for more than 8 bits, another format than 4:2:0, and what FFmpeg does not read, such as an animated WebP.
    """
    from av.error import FFmpegError as UnreadableError

    with suppress(UnreadableError), open_media(path) as media:
        context = media.streams.video[0].codec_context
        return context.codec.canonical_name if context.pix_fmt in {"yuv420p", "yuvj420p"} else None
    return None


def write_preview(video: Path, pictures: Path, out: Path, duration: float) -> None:
    """Write an MP4 that browsers play: the first sound track of `video`, and `pictures`.

    Raises FFmpegError and OSError as `v2m.media.ffmpeg.run_ffmpeg`.
    """
    height = f"trunc(min({PREVIEW_HEIGHT},ih)/2)*2"  # 4:2:0 needs even sides
    scale = f"scale='trunc(dar*min({PREVIEW_HEIGHT},ih)/2)*2':'{height}',setsar=1"
    codec = ("-c:v", "copy") if _plain_codec(pictures) == "h264" else ("-vf", scale, "-enc_time_base", "-1")
    maps = ("-map", "0:V:0", "-map", "1:a:0", "-map_metadata", "-1", "-c:a", "aac", "-b:a", "192k")
    words = [*maps, *PREVIEW_ARGUMENTS, *codec, "-f", "mp4", file_url(out)]
    run_ffmpeg([*input_arguments(pictures), *input_arguments(video), *words], (), timeout=120 + 30 * duration)


def _control_settings(controls: Controls) -> dict[str, Any]:
    """Return the controls as the sidecar names those of the command line."""
    settings: dict[str, Any] = {"reference": [path.name for path in controls.reference]}
    settings["melody"] = controls.melody and controls.melody.name
    if request := controls.inpaint:
        settings |= {"inpaint": f"{request.start:g}:{request.end:g}", "inpaint_source": str(request.source_path)}
    return settings


def strip_folders(value: Any) -> Any:
    """Return plain values with the names of files in the place of their paths."""
    if isinstance(value, Mapping):
        return {name: item if name in TEXTS else strip_folders(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strip_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
