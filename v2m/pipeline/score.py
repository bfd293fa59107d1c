"""One video in, one file out: open, tag, generate, mix, write."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from v2m.core.atomic import MADE_SUFFIX, name_outputs
from v2m.core.errors import UsageError
from v2m.core.progress import StageProgress, capture_warnings, no_progress
from v2m.core.protocols import MusicGenerator, Tagger
from v2m.core.types import Controls, InpaintRequest, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.base import GeneratorBase
from v2m.media import audio, video
from v2m.media.c2pa_manifest import C2paCredentials, MusicOrigin, sign, signed_format
from v2m.media.stream_plan import StreamPlan
from v2m.media.video import Limits
from v2m.mixing import mixer
from v2m.mixing.mixer import MixConfig
from v2m.pipeline import licensing, marking, sidecar, space
from v2m.pipeline.inpaint_source import resolve_inpaint_source
from v2m.pipeline.outputs import Outputs
from v2m.pipeline.ranking import RankBy, prepare_ranking, rank_candidates
from v2m.pipeline.recipes import Recipe, list_recipes, load_recipe
from v2m.pipeline.result import Candidate, Extras, ResultMetadata, ScoreResult
from v2m.taggers.base import TaggerBase

if TYPE_CHECKING:
    from v2m.pretrained.watermark import Watermark

logger = logging.getLogger(__name__)


def score_video(
    path: Path | str,
    out: Path | str | None = None,
    *,
    recipe: str | Recipe | None = None,
    tagger: Tagger | None = None,
    generator: MusicGenerator | None = None,
    tags: Tags | None = None,
    controls: Controls | None = None,
    mix: MixConfig | None = None,
    extras: Extras | None = None,
    limits: Limits | None = None,
    seed: int | None = None,
    candidates: int | None = None,
    rank_by: RankBy | None = None,
    align_to_cuts: bool | None = None,
    start: float | None = None,
    end: float | None = None,
    watermark: bool | None = None,
    commercial_safe: bool | None = None,
    c2pa: C2paCredentials | None = None,
    overwrite: bool = False,
    stages: StageProgress = no_progress,
) -> ScoreResult:
    """Write `path` with music to `out`, and a sidecar JSON beside it.

    Every argument that is a field of `Recipe` takes the recipe's value where it is None.

    Args:
        path: The video. It is only read.
        out: The file to write; beside the video by default. In a folder, and after a name that ends in `.v2m`, as the
            default one does, the container is chosen to suit the video.
        recipe: A name from `v2m.pipeline.recipes.list_recipes`, a YAML file, or a loaded recipe.
        tagger: Names the tags; measured from the picture where the recipe names none.
        generator: Writes the music; Sketch where the recipe names none.
        tags: Hints: every field set here wins over the tagger's. Where they are complete, the tagger is skipped.
        controls: Melody, reference or inpainting.
        mix: How the music meets the clip's own sound, and how loud; its start and end are those below.
        extras: Further files to write.
        limits: Largest accepted input.
        seed: The same seed gives the same music; 0 by default.
        candidates: Number of soundtracks, 1 by default; the best goes into the video, the others beside it.
        rank_by: Which candidate is best: "sync", the default, that follows the picture best; "tags", that in which
            musicnn's networks recognize most of the genres and instruments that are asked for.
        align_to_cuts: Move music whose generator plans no beats onto the cuts; True by default.
        start: Second of the video at which the music begins.
        end: Second of the video at which the music ends.
        watermark: Hide AudioSeal's watermark in the music of the video; files of `extras` are without it.
        commercial_safe: Refuse models and sound banks whose license forbids commercial use, or is not known.
        c2pa: Certificate and key by which the written video is signed with a C2PA manifest.
        overwrite: Replace existing files.
        stages: Shows progress.

    Raises:
        InvalidInputError: The input is not a video that can be scored.
        UsageError: The output exists, is the input, or an argument is out of range; LicenseError, which is one, where
            `commercial_safe` refuses a component.
        DependencyError: ffmpeg, a package or weights are missing.
        OSError: The disk is full or the folder is not writable.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe or Recipe()
    recipe = recipe.overridden_by(
        tagger=tagger, generator=generator, tags=tags, mix=mix, limits=limits, seed=seed, candidates=candidates,
        rank_by=rank_by, align_to_cuts=align_to_cuts, start=start, end=end, watermark=watermark,
        commercial_safe=commercial_safe,
    )  # fmt: skip
    recipe = replace(recipe, mix=replace(recipe.mix, start=recipe.start, end=recipe.end))
    controls, extras = controls or Controls(), extras or Extras()
    if recipe.candidates < 1 or recipe.seed < 0:
        values = f"{recipe.candidates} and {recipe.seed}"
        raise UsageError(f"candidates must be 1 or more and the seed 0 or more, not {values}")
    prepare_ranking(recipe.rank_by, recipe.candidates)
    the_tagger, the_generator = recipe.plugins
    _refuse_unsupported(the_generator, extras, controls)
    licensing.check_recipe(recipe, the_tagger, the_generator, controls)
    if c2pa is not None:
        c2pa.validate()
    clock = _StageClock()
    clip = video.open(path, recipe.limits)
    target = _output_path(clip, None if out is None else Path(out))
    if c2pa is not None:
        signed_format(target)
    outputs = Outputs.plan(clip, target, extras, overwrite, recipe.seeds if recipe.candidates > 1 else ())
    try:
        section = clip.crop(recipe.start, recipe.end)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if controls.inpaint is not None:
        controls = replace(controls, inpaint=resolve_inpaint_source(controls.inpaint, clip, section, outputs.video))
    plan = mixer.validate_streams(clip, target, recipe.mix)
    space.check_before_work(
        clip, section, the_generator, plan=plan, recipe=recipe, extras=extras, folder=outputs.folder,
        is_signed=c2pa is not None,
    )  # fmt: skip
    job = _Job(clip, section, plan, outputs, recipe, the_tagger, the_generator, controls, extras, c2pa, stages, clock)
    with capture_warnings() as warnings:
        prepared = job.prepare()
        final_tags, ranked = job.compose()
    return job.write(prepared, final_tags, ranked, warnings)


def _output_path(clip: Video, out: Path | None) -> Path:
    """Return the video to write, as `out` of `score_video` says."""
    if out is None or out.is_dir():
        out = name_outputs({clip.path: out or clip.path.parent})[clip.path]
    if out.suffix != MADE_SUFFIX:
        return out
    return out.with_name(f"{out.name}{mixer.default_output(clip).suffix}")


class _Prepared(NamedTuple):
    """Results of the preparation that are used once the music is written."""

    watermark: Watermark | None
    licenses: list[dict[str, Any]]


@dataclass(frozen=True)
class _Job:
    """One validated request: `section` is what is scored of `clip`."""

    clip: Video
    section: Video
    plan: StreamPlan
    outputs: Outputs
    recipe: Recipe
    tagger: TaggerBase
    generator: GeneratorBase
    controls: Controls
    extras: Extras
    c2pa: C2paCredentials | None
    stages: StageProgress
    clock: _StageClock

    def prepare(self) -> _Prepared:
        """Find what is missing, broken or refused before minutes of work, not after them."""
        watermark = marking.prepare() if self.recipe.watermark else None
        self.generator.prepare(self.recipe.tags, self.controls)
        self.generator.validate_video(self.section, self.controls)
        if not self.recipe.tags.is_complete:
            self.tagger.prepare()
        licensing.check_loaded(self.recipe, self.tagger, self.generator)
        components = licensing.recipe_components(self.recipe, self.tagger, self.generator, self.controls)
        return _Prepared(watermark, [component.to_dict() for component in components])

    def compose(self) -> tuple[Tags, list[Candidate]]:
        """Return the tags of the section, and the candidates, best first."""
        hints = self.recipe.tags
        with self.stages("Analyzing the picture") as progress:
            tags = hints if hints.is_complete else self.tagger.merged_tags(self.section, hints, progress)
        self.tagger.release()  # two models rarely fit side by side
        self.clock.lap("look")
        if tags.vocals and "vocals" not in self.generator.capabilities:
            logger.warning("vocals were asked for: this generator plays instruments only")
        with self.stages("Writing the music") as progress:
            soundtracks = self._generate(tags, progress)
            ranked = rank_candidates(self.recipe.seeds, soundtracks, self.section, tags, self.recipe.rank_by)
        self.generator.release()
        self.clock.lap("music")
        return tags, ranked

    def _generate(self, tags: Tags, progress: ProgressFn) -> list[Soundtrack]:
        """Return a soundtrack for each seed, aligned to the cuts unless a part of it is kept in place."""
        seeds = self.recipe.seeds
        options: dict[str, Any] = {"stems": self.extras.stems, "controls": self.controls, "progress": progress}
        if len(seeds) == 1:
            soundtracks = [self.generator.generate(self.section, tags, seeds[0], **options)]
        else:
            soundtracks = self.generator.generate_batch(self.section, tags, seeds, **options)
        if not self.recipe.align_to_cuts or self.controls.inpaint is not None:
            return soundtracks
        from v2m.pipeline.alignment import align_to_cuts

        return [align_to_cuts(soundtrack, self.section, tags.tempo) for soundtrack in soundtracks]

    def write(
        self, prepared: _Prepared, tags: Tags, ranked: Sequence[Candidate], warnings: Sequence[str]
    ) -> ScoreResult:
        """Mix the best candidate into the video, and write everything else beside it."""
        best, *others = ranked
        space.check_before_writing(
            self.clip, self.section, [candidate.soundtrack for candidate in ranked],
            plan=self.plan, extras=self.extras, folder=self.outputs.folder, is_signed=self.c2pa is not None,
        )  # fmt: skip
        with self.outputs.staged() as staged, ThreadPoolExecutor(1) as pool:
            input_digest = pool.submit(sidecar.sha256_file, self.clip.path)  # while ffmpeg encodes
            with self.stages("Mixing and writing") as progress:
                comment = sidecar.container_comment(self.recipe.name)
                watermark, music = prepared.watermark, best.soundtrack.audio
                if watermark is not None:
                    music = watermark.embed(music)
                mix = self.recipe.mix
                report = mixer.mix(self.clip, music, staged.video, mix, comment, False, progress, self.plan)
                for other in others:
                    audio.save(other.soundtrack.audio, staged.wav(other.seed))
                    if self.extras.report:
                        _plot(staged.report(other.seed), self.section, other.soundtrack)
                _write_extras(staged, self.extras, self.section, best.soundtrack)
                found = None if watermark is None else marking.read_back(watermark, staged.video, self.section)
                manifest = self._sign(staged)
            self.clock.lap("mix")
            record = sidecar.build(
                clip=self.clip, input_sha256=input_digest.result(), section=self.section, outputs=self.outputs,
                staged=staged, tagger=self.tagger, generator=self.generator, recipe=self.recipe, tags=tags,
                candidates=ranked, mix=report,
                warnings=warnings, licenses=prepared.licenses, watermark=found, c2pa=manifest,
            )  # fmt: skip
            sidecar.write(record, staged.sidecar)
        notes, settings = tuple(record["warnings"]), record["settings"]
        metadata = ResultMetadata(self.recipe.name, best.seed, settings, self.clock.laps, notes)
        return ScoreResult(self.outputs.video, tags, best.soundtrack, metadata, tuple(ranked), record)

    def _sign(self, staged: Outputs) -> Mapping[str, Any] | None:
        """Sign the staged video, and return what its manifest says; None where no signature was asked for."""
        licensing.check_loaded(self.recipe, self.tagger, self.generator)
        if self.c2pa is None:
            return None
        recipe = self.recipe.name if self.recipe.name in list_recipes() else None
        return sign(staged.video, self.clip.path, self.c2pa, MusicOrigin(self.generator.digital_source, recipe))


def inpaint(
    path: Path | str, start: float, end: float, *, source: Path | str | None = None, **options: Any
) -> ScoreResult:
    """Write new music for a range of seconds of a scored video; the rest is kept sample for sample.

    Args:
        path: The original video, or v2m's output `NAME.v2m.EXT` beside it.
        start: First second to replace.
        end: Second at which the kept music resumes.
        source: The music to keep, a WAV or an output of v2m; the output beside the video by default.
        **options: As of `score_video`; `overwrite` is on by default.

    Raises:
        UsageError: The range lies outside of the video, or there is no earlier music.
    """
    original, options = _original_of(Path(path)), {"overwrite": True, **options}
    request = InpaintRequest(start, end, None if source is None else Path(source))
    controls = replace(options.pop("controls", None) or Controls(), inpaint=request)
    return score_video(original, controls=controls, **options)


def _original_of(path: Path) -> Path:
    """Return the video whose default output `path` is, where it lies beside it; else `path` itself."""
    if path.stem.endswith(MADE_SUFFIX):
        label, out = path.stem.removesuffix(MADE_SUFFIX), path.with_suffix("")
        siblings = [path.with_name(label), *sorted(path.parent.glob(f"{glob.escape(label)}.*"))]
        videos = (other for other in siblings if other.suffix.lower() in video.VIDEO_SUFFIXES and other.is_file())
        return next((other for other in videos if name_outputs({other: path.parent})[other] == out), path)
    return path


@dataclass
class _StageClock:
    """Wall time of each stage in seconds."""

    laps: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 3), now


def _refuse_unsupported(generator: GeneratorBase, extras: Extras, controls: Controls) -> None:
    requested = controls.requested | {name for name, on in {"stems": extras.stems, "midi": extras.midi}.items() if on}
    lacking = requested - generator.capabilities
    if lacking:
        sets = (lacking, generator.capabilities - {"vocals"})
        refused, available = (", ".join(f"`{name}`" for name in sorted(names)) for names in sets)
        can = f"it can do {available or 'none of these'}"
        raise UsageError(f"the generator {generator.class_name} cannot do {refused}; {can}")


def _write_extras(staged: Outputs, extras: Extras, section: Video, soundtrack: Soundtrack) -> None:
    if extras.stems:
        for name, stem in soundtrack.stems.items():
            audio.save(stem, staged.stem(name))
    if extras.wav:
        audio.save(soundtrack.audio, staged.wav())
    if extras.midi:
        assert soundtrack.midi is not None, "a generator with the capability midi returned none"
        staged.midi.write_bytes(soundtrack.midi)
    if extras.markers:
        from v2m.pipeline import markers

        markers.write(staged.markers, section, soundtrack)
    if extras.report:
        _plot(staged.report(), section, soundtrack)


def _plot(path: Path, section: Video, soundtrack: Soundtrack) -> None:
    from v2m.pipeline import report

    report.plot_report(path, section, soundtrack)
