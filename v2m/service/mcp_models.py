"""Arguments and results of the MCP tools, whose schemas the protocol shows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from v2m.pipeline.recipes import DEFAULT_RECIPE
from v2m.service.requests import ExtraFiles

MAX_CANDIDATES = 4
MAX_SEED = 2**31 - 1
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Arguments(BaseModel):
    """Arguments of a tool; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


class TagHints(Arguments):
    """Tags of the music to write; those left out are read from the picture."""

    caption: str = Field(default="", description="one sentence on what is seen")
    genres: list[str] = Field(default=[], description="styles, the strongest first")
    instruments: list[str] = Field(default=[], description="instruments to be heard")
    moods: list[str] = Field(default=[], description="words for the feeling")
    timbres: list[str] = Field(default=[], description="words for the sound")
    tempo: float | None = Field(default=None, description="beats per minute, 30 to 300")
    key: str | None = Field(default=None, description="tonic and mode, such as 'F# minor'")
    vocals: bool = Field(default=False, description="whether anybody sings, where the recipe can")
    negative: list[str] = Field(default=[], description="genres, instruments and moods to avoid")
    lyrics: str = Field(default="", description="words to be sung, each section under a header such as [verse]")


class TagArguments(Arguments):
    """Arguments of `tag_video`."""

    path: str = Field(description="a video below one of the allowed folders")
    recipe: str = Field(default=DEFAULT_RECIPE, description="a name that list_recipes gives")
    tags: TagHints = Field(default_factory=TagHints, description="tags that shall stay as they are")


class ScoreArguments(TagArguments):
    """Arguments of `score_video`."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="the same seed gives the same music")
    candidates: int = Field(
        default=1, ge=1, le=MAX_CANDIDATES, description="pieces to write, of which the best comes first"
    )
    original: Literal["replace", "keep", "duck"] = Field(
        default="replace",
        description="the video's own sound: left out, kept, or kept with music that gives way to it",
    )
    start: Seconds | None = Field(default=None, description="second of the video where the music begins")
    end: Seconds | None = Field(default=None, description="second of the video where the music ends")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="other values, such as {'mix.lufs': -16, 'align_to_cuts': false}: of mix, rank_by, align_to_cuts, "
        "watermark and commercial_safe, and numbers and switches of the generator and the tagger",
    )
    extras: ExtraFiles = Field(default_factory=ExtraFiles, description="files to write beside the video")


class InpaintArguments(Arguments):
    """Arguments of `inpaint_video`."""

    path: str = Field(description="the original video")
    result: str = Field(
        description="the `video` that score_video or inpaint_video wrote for it, with its JSON (sidecar) beside it"
    )
    start: Seconds = Field(description="first second whose music is written anew")
    end: Seconds = Field(description="second from which the music is kept again")
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="another seed gives other music; by default the next one"
    )
    tags: TagHints = Field(
        default_factory=TagHints, description="tags of the new music; those left out are the result's"
    )
    extras: ExtraFiles = Field(default_factory=ExtraFiles, description="files to write beside the video")


class RecipesArguments(Arguments):
    """Arguments of `list_recipes`."""

    names: list[str] = Field(default=[], description="recipes to look at; all where none is named, which takes longer")
    refresh: bool = Field(default=False, description="look again, such as after a download")


class TagOutput(BaseModel):
    """Result of `tag_video`."""

    tags: dict[str, JsonValue]


class CandidateOutput(BaseModel):
    """One piece. `sync_score`: how well sound and picture agree, 0 to 1; null where it is the only one."""

    seed: int
    video: str
    sync_score: float | None


class CutsOutput(BaseModel):
    """Cuts of the picture, and how well the music is aligned to them."""

    cuts: int
    met: int = Field(description="cuts with a beat or an accent of the music within 70 ms")
    by_chance: float = Field(description="cuts that would be met on average if they lay at random times")


class ScoreOutput(BaseModel):
    """Result of `score_video` and `inpaint_video`. Paths are absolute; `video` is the best candidate."""

    video: str
    music: str | None = Field(description="the music alone, as WAV")
    sidecar: str = Field(description="JSON beside `video` with every value that the music depends on")
    files: list[str] = Field(description="all files that were written")
    recipe: str
    seed: int
    seconds: float = Field(description="length of the music")
    tags: dict[str, JsonValue]
    cuts: CutsOutput | None = Field(description="null where the video has no cuts, or the beats are not known")
    candidates: list[CandidateOutput]
    warnings: list[str]


class RecipeOutput(BaseModel):
    """A recipe. `missing`: what this machine lacks for it; null where it can be used."""

    name: str
    description: str
    missing: str | None
    capabilities: list[str]


class RecipesOutput(BaseModel):
    """Result of `list_recipes`."""

    recipes: list[RecipeOutput]
