"""The process in which the work is done: it can be ended at any moment, and takes its model's memory with it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from v2m.core.types import ProgressFn

STEP = 0.005  # of a stage: less is not told
Event = tuple[str, Any]  # ("stage", its name), ("progress", 0–1), then ("done", Done) or ("failed", one line)


@dataclass(frozen=True)
class Task:
    """`look`: only the tags. words: flags of infer.py. out: the video to write; what else there is comes beside it."""

    video: Path
    recipe: str
    words: tuple[str, ...] = ()
    out: Path | None = None
    look: bool = False


@dataclass(frozen=True)
class Take:
    """One piece of music in the video. music: it by itself, as it was written. report: the picture of it.

    fit: 0–1, None where it is the only one. beats: (B,) seconds of the video, those of the best take. files: all that
    belongs to it.
    """

    seed: int
    video: Path
    music: Path
    report: Path
    fit: float | None = None
    beats: tuple[float, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Done:
    """Result of a task: tags, sidecar, and all takes, the best first."""

    tags: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[Take, ...] = ()


def serve(pipe: Connection) -> None:
    """Does one task after the other until the pipe is closed. A generator stays for the next task with its settings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the page says when to end
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import v2m.pipeline.score  # noqa: F401 - now rather than while somebody waits

    bench = _Bench(pipe)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", bench.look(task) if task.look else bench.score(task)))
        except BrokenPipeError:
            return
        except BaseException as error:
            from v2m.core import errors

            if errors.exit_code(error) == errors.BUG:
                logging.getLogger(__name__).exception("while working on %s", task.video.name)
            pipe.send(("failed", public(errors.format_error(error), task)))


def public(line: str, task: Task) -> str:
    """Without the folders of this machine."""
    for path in (task.video, task.out):
        if path is not None:
            line = line.replace(f"{path.parent}/", "")
    return line.replace("; --debug shows where", "")


def _take(out: Path, told: Mapping[str, Any], beats: tuple[float, ...], files: tuple[Path, ...]) -> Take:
    """Take of the video `out`, described by the sidecar entry `told`."""
    music, report = out.with_suffix(".wav"), out.with_suffix(".png")
    return Take(told["seed"], out, music, report, told.get("total"), beats, files)


def placeless(value: Any) -> Any:
    """Plain values with the names of files in the place of their paths."""
    if isinstance(value, Mapping):
        return {name: placeless(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [placeless(each) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


class _Bench:
    """State kept from task to task."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._kept: tuple[Any, Any] = (None, None)  # settings of a generator, and it

    def look(self, task: Task) -> Done:
        """The tagger's tags alone."""
        from v2m.media import video
        from v2m.pipeline import arguments

        request = arguments.parse([str(task.video), "--recipe", task.recipe, *task.words])
        tagger, hints = request.arguments["tagger"], request.arguments["tags"]
        clip = video.open(task.video, request.arguments["limits"])
        from v2m.taggers.base import as_tagger

        with self._stages("Analyzing the picture") as progress:
            found = tagger.tag(clip, hints, progress).overridden_by(hints)
        as_tagger(tagger).release()
        return Done(found.to_dict())

    def score(self, task: Task) -> Done:
        """The video with its music, every extra that the generator can give, and each other take in the video, too."""
        from v2m.generators.base import as_generator
        from v2m.media import audio, video
        from v2m.mixing import mixer
        from v2m.pipeline import arguments, sidecar
        from v2m.pipeline.result import Extras
        from v2m.pipeline.score import score_video

        assert task.out is not None
        request = arguments.parse([str(task.video), "--recipe", task.recipe, *task.words])
        given, settings = dict(request.arguments), request.settings
        given["generator"] = self._generator(given["generator"], settings["generator"])
        able = as_generator(given["generator"]).capabilities
        given["extras"] = Extras(stems="stems" in able, midi="midi" in able, markers="edl", report=True, wav=True)
        result = score_video(
            task.video, task.out, provenance={"recipe": task.recipe, "settings": settings}, stages=self._stages, **given
        )
        record = placeless(result.record)
        sidecar.write(record, task.out.with_suffix(".json"))
        clip, mix = video.open(task.video, given["limits"]), given["mix"]
        mix = replace(mix, start=given["start"], end=given["end"])
        beats = tuple(record["range"]["start"] + beat for beat in record["music"]["beats"])
        best, *others = record["candidates"]
        rest = [path for path in task.out.parent.rglob("*") if path.is_file() and ".seed" not in path.name]
        files = (task.out, *sorted(path for path in rest if path != task.out))
        takes = [_take(task.out, best, beats, files)]
        for number, other in enumerate(others):
            out = task.out.with_name(f"{task.out.stem}.seed{other['seed']}{task.out.suffix}")
            take = _take(out, other, beats, (out, out.with_suffix(".wav"), out.with_suffix(".png")))
            with self._stages(f"Writing take {number + 2} of {len(record['candidates'])}") as progress:
                wave = audio.load(take.music, record["mix"]["sample_rate"], clip.duration)
                mixer.mix(clip, wave, out, mix, sidecar.container_comment({"recipe": task.recipe}), False, progress)
            takes.append(take)
        return Done(record["tags"], record, tuple(takes))

    def _generator(self, made: Any, settings: Any) -> Any:
        if self._kept[0] != settings:
            self._kept = settings, made
        return self._kept[1]

    @contextmanager
    def _stages(self, name: str) -> Iterator[ProgressFn]:
        self._pipe.send(("stage", name))
        told = 0.0

        def progress(fraction: float) -> None:
            nonlocal told
            if fraction >= told + STEP:
                told = fraction
                self._pipe.send(("progress", min(1.0, fraction)))

        yield progress
        self._pipe.send(("progress", 1.0))
