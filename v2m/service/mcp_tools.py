"""Tools of the MCP server, without the protocol: arguments, limits and structured results."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.types import Controls, InpaintRequest
from v2m.pipeline.inpaint_source import read_sidecar, sidecar_of
from v2m.pipeline.job_runner import Event, Job, JobCancelledError, JobResult, JobRunner
from v2m.pipeline.recipe_status import READY, RecipeStatus
from v2m.pipeline.recipes import COMPONENTS, DEFAULT_RECIPE, list_recipes, recipe_path
from v2m.pipeline.sidecar import sha256_file
from v2m.service.mcp_models import (
    MAX_SEED,
    CandidateOutput,
    CutsOutput,
    InpaintArguments,
    RecipeOutput,
    RecipesOutput,
    ScoreArguments,
    ScoreOutput,
    TagArguments,
    TagHints,
    TagOutput,
)
from v2m.service.requests import (
    FREE_SETTINGS,
    JobRequest,
    build_job,
    check_request,
    flatten,
    resolve_path,
)

SESSION = "mcp"  # of all jobs of this process
MAX_STEM = 120  # bytes of the name of a video that are kept in the names of its outputs
_SENTENCE_WITH_FLAG = re.compile(r"(^|(?<=\. ))((?!\. ).)*--.*$")
Notify = Callable[[Event], None]  # gets each event of a job; what it raises ends the job


@dataclass(frozen=True)
class ToolLimits:
    """Limits of the tools.

    Args:
        folders: Folders below which a tool may read files.
        out: Folder below which all outputs are written, each job in a new folder; a tool may read them, too.
        max_seconds: The longest video.
        max_minutes: The longest that a job may take.
    """

    folders: tuple[Path, ...]
    out: Path
    max_seconds: float = 600.0
    max_minutes: float = 60.0


@dataclass
class Tools:
    """The work of the tools, which blocks. One job runs at a time: the caller makes the next one wait.

    Every method raises what is no fault of the code as UsageError or another error of `v2m.core.errors`.
    """

    limits: ToolLimits
    statuses: dict[str, RecipeStatus] = field(default_factory=lambda: {DEFAULT_RECIPE: READY})  # of recipes looked at

    def __post_init__(self) -> None:
        self._runner = JobRunner(self.limits.max_minutes)

    def close(self) -> None:
        """End the job under way and the worker process."""
        self._runner.cancel()

    def tag(self, arguments: TagArguments, notify: Notify) -> TagOutput:
        """Return the tags of a video."""
        video = self._resolve(arguments.path)
        request = JobRequest(recipe=arguments.recipe, settings=_tag_settings(arguments.tags))
        job = self._build_job(request, video, self.limits.out)
        return TagOutput(tags=dict(self._run(replace(job, out=None), notify).tags))

    def score(self, arguments: ScoreArguments, notify: Notify) -> ScoreOutput:
        """Write a video with music."""
        video = self._resolve(arguments.path)
        _check_settings(arguments.settings)
        settings: dict[str, Any] = {"mix.original": arguments.original, **arguments.settings}
        settings |= {name: getattr(arguments, name) for name in ("seed", "candidates", "start", "end")}
        settings |= _tag_settings(arguments.tags)
        request = JobRequest(recipe=arguments.recipe, settings=settings, extras=arguments.extras)
        return self._score(request, video, Controls(), notify)

    def inpaint(self, arguments: InpaintArguments, notify: Notify) -> ScoreOutput:
        """Write a result again with other music between two seconds; its settings are those of its sidecar."""
        video, result = self._resolve(arguments.path), self._resolve(arguments.result)
        if arguments.start >= arguments.end:
            raise UsageError(f"start {arguments.start:g} is not before end {arguments.end:g}")
        music = self._music_of(result)
        self._check_sidecars(result, music)
        record = read_sidecar(result) or {}
        _check_input(record, video, result)
        seed = arguments.seed
        if seed is None:
            before = record.get("seed")
            seed = (before + 1) % (MAX_SEED + 1) if type(before) is int and before >= 0 else 1
        settings = {**_recorded_settings(record), **_tag_settings(arguments.tags), "seed": seed}
        recipe = record.get("recipe")
        request = JobRequest(
            recipe=recipe if isinstance(recipe, str) else DEFAULT_RECIPE, settings=settings, extras=arguments.extras
        )
        inpaint = InpaintRequest(arguments.start, arguments.end, music)
        return self._score(request, video, Controls(inpaint=inpaint), notify)

    def describe_recipes(self, names: Sequence[str]) -> RecipesOutput:
        """Return recipes whose status is known."""
        recipes = [
            RecipeOutput(
                name=name,
                description=_description(recipe_path(name)),
                missing=self.statuses[name].missing,
                capabilities=sorted(self.statuses[name].capabilities),
            )
            for name in names
        ]
        return RecipesOutput(recipes=recipes)

    def _score(self, request: JobRequest, video: Path, controls: Controls, notify: Notify) -> ScoreOutput:
        job = self._build_job(request, video, self.limits.out)
        with _new_folder(self.limits.out, video.stem) as folder:
            out = folder / f"{_short_stem(video.stem)}.v2m"
            result = self._run(replace(job, controls=controls, out=out), notify)
        return _score_output(request, result)

    def _build_job(self, request: JobRequest, video: Path, out: Path) -> Job:
        check_recipe_names([request.recipe])
        check_request(request)
        return build_job(request, video, out, max_seconds=self.limits.max_seconds)

    def _run(self, job: Job, notify: Notify) -> JobResult:
        with closing(self._runner.run(job, SESSION)) as events:
            for event in events:
                notify(event)
                if event[0] == "done":
                    return event[1]
        raise JobCancelledError

    def _resolve(self, name: str) -> Path:
        """Return the file of a name that a caller gives. Raise UsageError outside of the allowed folders."""
        folders = (*self.limits.folders, self.limits.out)
        try:
            return resolve_path(name, folders)
        except (UsageError, OSError, ValueError):  # such as a name that no file system takes
            allowed = ", ".join(dict.fromkeys(str(folder) for folder in folders))
            raise UsageError(f"{name[:200]!r} is no file below the allowed folders ({allowed})") from None

    def _music_of(self, result: Path) -> Path:
        """Return the WAV beside a result, which is not mastered yet; else the result itself."""
        music = result.with_suffix(".wav")
        return self._resolve(str(music)) if music.is_file() else result

    def _check_sidecars(self, *paths: Path) -> None:
        """Raise UsageError where a sidecar of one of these files is none below the allowed folders."""
        for sidecar in {place for path in paths for place in (path.with_suffix(".json"), sidecar_of(path))}:
            if os.path.lexists(sidecar):
                self._resolve(str(sidecar))


def check_recipe_names(names: Sequence[str]) -> None:
    """Raise UsageError for a name of no shipped recipe; a path of a file is none."""
    shipped = list_recipes()
    for name in names:
        if name not in shipped:
            raise UsageError(f"unknown recipe {name[:80]!r}: give one of {', '.join(shipped)}")


def _check_settings(settings: Mapping[str, Any]) -> None:
    allowed = [name for name in (*FREE_SETTINGS, *COMPONENTS) if name not in ScoreArguments.model_fields]
    for name in settings:
        first = name.partition(".")[0]
        if first in ScoreArguments.model_fields:
            raise UsageError(f"setting {name[:80]!r}: give it as the argument {first!r}")
        if first not in allowed:
            raise UsageError(f"setting {name[:80]!r}: the first part must be one of {', '.join(allowed)}")


def _check_input(record: Mapping[str, Any], video: Path, result: Path) -> None:
    """Raise UsageError where a sidecar does not say that `result` was made of `video`."""
    source = record.get("input")
    digest = source.get("sha256") if isinstance(source, Mapping) else None
    if digest is None:
        raise UsageError(f"{str(result)!r} has no sidecar of v2m beside it: give the `video` that score_video wrote")
    if digest != sha256_file(video):
        raise UsageError(f"{str(result)!r} was made of another video than {str(video)!r}")


def _tag_settings(hints: TagHints) -> dict[str, Any]:
    """Return the tags that a caller gives; an empty one wins over that of a result, null does not."""
    given = hints.model_dump(exclude_unset=True)
    return {f"tags.{name}": value for name, value in given.items() if value is not None}


def _recorded_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a sidecar that a caller may set; like all settings, they are checked later."""
    settings = record.get("settings")
    if not isinstance(settings, Mapping):
        return {}
    names = ("tags", "mix", "align_to_cuts", "start", "end", "watermark", "commercial_safe")
    values = {name: settings[name] for name in names if settings.get(name) is not None}
    for component in COMPONENTS:
        part = settings.get(component)
        options = part.get("init_args") if isinstance(part, Mapping) else None
        if isinstance(options, Mapping):
            numbers = flatten(options, f"{component}.")
            values |= {name: value for name, value in numbers if isinstance(value, bool | int | float)}
    return values


@contextmanager
def _new_folder(out: Path, stem: str) -> Iterator[Path]:
    """Yield a new folder below `out` for one job, removed where the job does not end well."""
    folder = _claim_folder(out, _short_stem(stem))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _claim_folder(out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = out / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")


def _short_stem(stem: str) -> str:
    name = re.sub(r"[^\w.-]+", "_", stem).encode()[:MAX_STEM].decode(errors="ignore")
    return name.strip("._") or "video"


def _score_output(request: JobRequest, result: JobResult) -> ScoreOutput:
    best, record = result.candidates[0], result.record
    files = [str(path) for candidate in result.candidates for path in candidate.files if path.is_file()]
    span = record["range"]
    return ScoreOutput(
        video=str(best.video),
        music=str(best.music) if best.music.is_file() else None,
        sidecar=str(best.video.with_suffix(".json")),
        files=files,
        recipe=request.recipe,
        seed=best.seed,
        seconds=round(span["end"] - span["start"], 3),
        tags=dict(result.tags),
        cuts=_cuts_output(record["alignment"]),
        candidates=[
            CandidateOutput(seed=each.seed, video=str(each.video), sync_score=each.sync) for each in result.candidates
        ],
        warnings=list(record["warnings"]),
    )


def _cuts_output(alignment: Mapping[str, Any] | None) -> CutsOutput | None:
    if alignment is None or alignment["hits"] is None:
        return None
    hits, chance = (alignment[name] * alignment["n"] for name in ("hits", "chance"))
    return CutsOutput(cuts=alignment["n"], met=round(hits), by_chance=round(chance, 2))


def _description(recipe: Path) -> str:
    """Return the text at the head of a recipe, without commands and their flags."""
    lines: list[str] = []
    for line in recipe.read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("#"):
            break
        lines.append(_SENTENCE_WITH_FLAG.sub("", line.lstrip("# ")))
    text = " ".join(" ".join(lines).split())
    return text[: text.rfind(".") + 1]  # without the begin of a sentence whose end had a flag
