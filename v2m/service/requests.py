"""Requests for jobs: what a caller may set, checked before the job is accepted.

A caller sets the values of the command by the names of its flags. Left to the operator is what names a file, a class or
a model: they could read any file of this machine, or run any code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from v2m.core.errors import UsageError
from v2m.core.types import Controls, InpaintRequest
from v2m.pipeline.job_runner import Job
from v2m.pipeline.recipes import COMPONENTS, DEFAULT_RECIPE, list_recipes, load_recipe
from v2m.pipeline.result import Extras

FREE_SETTINGS = (
    *("tags", "mix", "seed", "candidates", "rank_by", "align_to_cuts", "start", "end"),
    *("watermark", "commercial_safe"),
)
MAX_CANDIDATES = 10
MAX_TEXT = 10_000  # characters of one value
MAX_SETTINGS = 200
_FORBIDDEN = re.compile(r"[\ud800-\udfff]|\\u00(?:0[0-8bce-f]|1)|\x7f")  # surrogates and control characters


class ExtraFiles(BaseModel):
    """Files to write beside the video; as of the command."""

    model_config = ConfigDict(extra="forbid")
    stems: bool = Field(default=False, description="the parts of the music as WAV files")
    midi: bool = Field(default=False, description="the notes as a Standard MIDI File")
    markers: Literal["edl", "otio"] | None = Field(
        default=None, description="sections, and cuts that the music meets, for a video editor"
    )
    report: bool = Field(default=False, description="a picture of cuts, beats and loudness")
    wav: bool = Field(default=True, description="the music alone, before mixing")


class InpaintRange(BaseModel):
    """Seconds whose music is written anew; the rest is that of `job`."""

    model_config = ConfigDict(extra="forbid")
    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(gt=0)]
    job: str = Field(description="id of a finished job of yours for the same video, which wrote a WAV")


class JobRequest(BaseModel):
    """A job: a recipe and settings. The video is uploaded, or named by `path` or `url`."""

    model_config = ConfigDict(extra="forbid")
    recipe: str = Field(default=DEFAULT_RECIPE, description="a name of GET /v1/recipes")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="values as of the command, nested or dotted: {'tags': {'tempo': 90}} or {'tags.tempo': 90}",
        max_length=MAX_SETTINGS,
    )
    extras: ExtraFiles = Field(default_factory=ExtraFiles)
    inpaint: InpaintRange | None = None
    path: str | None = Field(default=None, description="a video below a folder that the service may read")
    url: str | None = Field(
        default=None, description="an address of a video, of a host that the service may fetch from"
    )


def check_request(request: JobRequest) -> None:
    """Raise UsageError where there is no such recipe, or a setting is not free or does not fit."""
    if request.recipe not in list_recipes():
        raise UsageError(f"there is no recipe {request.recipe[:80]!a}: see GET /v1/recipes")
    values = overrides(request)
    candidates = values.get("candidates", 1)
    if not isinstance(candidates, int) or not 1 <= candidates <= MAX_CANDIDATES:
        raise UsageError(f"candidates must be 1 to {MAX_CANDIDATES}")
    free = {name: value for name, value in values.items() if name.partition(".")[0] in FREE_SETTINGS}
    load_recipe(DEFAULT_RECIPE, free)  # whose parts load no library of models
    if request.inpaint is not None and request.inpaint.start >= request.inpaint.end:
        raise UsageError(f"inpaint: {request.inpaint.start:g} is not before {request.inpaint.end:g}")


def overrides(request: JobRequest) -> dict[str, Any]:
    """Return the settings by dotted key, as of `load_recipe`.

    Raise UsageError for one that a caller may not set.
    """
    values: dict[str, Any] = {}
    for name, value in flatten(request.settings):
        first = name.partition(".")[0]
        if first not in {*FREE_SETTINGS, *COMPONENTS}:
            raise UsageError(f"setting {name[:80]!a}: the first part must be one of {', '.join(FREE_SETTINGS)}")
        if len(json.dumps(value)) > MAX_TEXT:
            raise UsageError(f"setting {name[:80]!a} has more than {MAX_TEXT:,} characters")
        if _FORBIDDEN.search(json.dumps(value, ensure_ascii=False)):
            raise UsageError(f"setting {name[:80]!a} has characters that are no text")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"setting {name[:80]!a} is no number")
        if first in COMPONENTS and not (value is None or isinstance(value, bool | int | float)):
            raise UsageError(f"setting {name[:80]!a}: only numbers and switches of a {first} can be set")
        key = name.replace(f"{first}.", f"{first}.init_args.", 1) if first in COMPONENTS else name
        values[key.replace(".init_args.init_args.", ".init_args.")] = value
    return values


def flatten(settings: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted key. Raise UsageError where they are nested too deeply."""
    if depth > 6:
        raise UsageError("the settings are nested too deeply")
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def build_job(
    request: JobRequest,
    video: Path,
    out: Path,
    *,
    max_seconds: float,
    melody: Path | None = None,
    reference: Path | None = None,
    inpaint_source: Path | None = None,
) -> Job:
    """Return the job of the worker process; `max_seconds` is the longest video."""
    inpaint = None
    if request.inpaint is not None:
        inpaint = InpaintRequest(request.inpaint.start, request.inpaint.end, inpaint_source)
    controls = Controls((reference,) if reference else (), melody, inpaint)
    values = {**overrides(request), "limits.duration": max_seconds}
    extras = Extras(**request.extras.model_dump())
    return Job(video, request.recipe, values, controls, out, extras, previews=False)


def resolve_path(name: str, roots: tuple[Path, ...]) -> Path:
    """Return the file `name` below one of the folders, links resolved. Raise UsageError elsewhere."""
    if not roots:
        raise UsageError("this service reads no files of its machine: upload the video")
    if "\0" in name or ".." in PurePosixPath(name).parts:
        raise UsageError("path: no such file in the folders of this service")
    for root in roots:
        base = root.resolve()
        path = (base / name).resolve()
        if path.is_relative_to(base) and path.is_file():
            return path
    raise UsageError("path: no such file in the folders of this service")
