"""One video in, one file out: open, tag, generate, mix, write."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.progress import StageProgress, capture_warnings, no_progress
from v2m.core.protocols import MusicGenerator, Tagger
from v2m.core.types import Controls, Soundtrack, Tags, Video
from v2m.generators.base import GeneratorBase, as_generator
from v2m.media import audio, video
from v2m.media.video import Limits
from v2m.mixing import mixer
from v2m.mixing.mixer import MixConfig
from v2m.pipeline import sidecar
from v2m.pipeline.candidates import generate_candidates
from v2m.pipeline.inpaint_source import resolve_inpaint_source
from v2m.pipeline.outputs import Outputs
from v2m.pipeline.result import Candidate, Extras, ResultMetadata, ScoreResult
from v2m.taggers.base import TaggerBase, as_tagger

logger = logging.getLogger(__name__)


def score_video(
    path: Path | str,
    out: Path | str | None = None,
    *,
    recipe: str | None = None,
    tagger: Tagger | None = None,
    generator: MusicGenerator | None = None,
    tags: Tags | None = None,
    controls: Controls | None = None,
    mix: MixConfig | None = None,
    extras: Extras | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    candidates: int = 1,
    align_to_cuts: bool = True,
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    provenance: Mapping[str, Any] | None = None,
    stages: StageProgress = no_progress,
) -> ScoreResult:
    """Write `path` with music to `out`, and a sidecar JSON beside it.

    Args:
        path: The video. It is only read.
        out: The file to write, or a folder for it; beside the video by default. The default name contains `.v2m`.
        recipe: A name from `v2m.pipeline.recipes.list_recipes` or a YAML file; it supplies tagger, generator, mix and
            limits where these are not given.
        tagger: Names the tags; measured from the picture by default.
        generator: Writes the music; Sketch by default.
        tags: Hints: every field set here wins over the tagger's. Where they are complete, the tagger is skipped.
        controls: Melody, reference or inpainting.
        mix: How the music meets the clip's own sound, and how loud; its start and end are those below.
        extras: Further files to write.
        limits: Largest accepted input.
        seed: The same seed gives the same music.
        candidates: Number of soundtracks; the best by `v2m.analysis.synchrony` goes into the video, the others beside.
        align_to_cuts: Move music whose generator does not plan beats onto the cuts (`v2m.pipeline.alignment`).
        start: Second of the video where the music begins.
        end: Second of the video where the music ends.
        overwrite: Replace existing files.
        provenance: Recipe and settings for the sidecar; those of `recipe` by default.
        stages: Shows progress.

    Raises:
        InvalidInputError: The input is not a video that can be scored.
        UsageError: The output exists, is the input, or an argument is out of range.
        DependencyError: ffmpeg, a package or weights are missing.
        OSError: The disk is full or the folder is not writable.
    """
    if recipe is not None:
        from v2m.pipeline.recipes import load_recipe

        loaded = load_recipe(recipe)
        tagger, generator = tagger or loaded.tagger, generator or loaded.generator
        tags, mix, limits = tags or loaded.tags, mix or loaded.mix, limits or loaded.limits
        provenance = provenance or {"recipe": recipe, "settings": loaded.settings}
    the_tagger, the_generator = _default_tagger(tagger), _default_generator(generator)
    hints, mix, extras = tags or Tags(), replace(mix or MixConfig(), start=start, end=end), extras or Extras()
    if candidates < 1 or seed < 0:
        raise UsageError(f"candidates must be 1 or more and the seed 0 or more, not {candidates} and {seed}")
    _refuse_unsupported(the_generator, extras, controls or Controls())
    seeds = range(seed, seed + candidates)
    clock = StageClock()
    clip = video.open(path, limits or Limits())
    outputs = Outputs.plan(clip, _output_path(clip, out), extras, overwrite, seeds if candidates > 1 else ())
    section = _crop(clip, start, end)
    if controls is not None and controls.inpaint is not None:
        controls = replace(controls, inpaint=resolve_inpaint_source(controls.inpaint, clip, section, outputs.video))
    job = _Job(
        clip, section, outputs, the_tagger, the_generator, hints, controls, mix, extras, provenance, stages, clock
    )
    with capture_warnings() as warnings:
        final_tags, ranked = job.compose(seeds, align_to_cuts)
    return job.write(final_tags, ranked, warnings)


@dataclass(frozen=True)
class _Job:
    """One validated request: `section` is what is scored of `clip`."""

    clip: Video
    section: Video
    outputs: Outputs
    tagger: TaggerBase
    generator: GeneratorBase
    hints: Tags
    controls: Controls | None
    mix: MixConfig
    extras: Extras
    provenance: Mapping[str, Any] | None
    stages: StageProgress
    clock: StageClock

    def compose(self, seeds: Sequence[int], align_to_cuts: bool) -> tuple[Tags, list[Candidate]]:
        """Tags of the section, and the candidates, best first."""
        _prepare(self.tagger, self.generator, self.section, self.hints, self.controls or Controls())
        with self.stages("Analyzing the picture") as progress:
            complete = self.hints.is_complete
            tags = self.hints if complete else self.tagger.merged_tags(self.section, self.hints, progress)
        self.tagger.release()  # two models rarely fit side by side
        self.clock.lap("look")
        if tags.vocals and "vocals" not in self.generator.capabilities:
            logger.warning("vocals were asked for: this generator plays instruments only")
        with self.stages("Writing the music") as progress:
            ranked = generate_candidates(
                self.generator, self.section, tags, seeds, self.controls,
                stems=self.extras.stems, align_to_cuts=align_to_cuts, progress=progress,
            )  # fmt: skip
        self.generator.release()
        self.clock.lap("music")
        return tags, ranked

    def write(self, tags: Tags, ranked: Sequence[Candidate], warnings: Sequence[str]) -> ScoreResult:
        """Mix the best candidate into the video, and write everything else beside it."""
        best, *others = ranked
        with self.outputs.staged() as staged:
            with self.stages("Mixing and writing") as progress:
                comment = sidecar.container_comment(self.provenance)
                mixed = mixer.mix(self.clip, best.soundtrack.audio, staged.video, self.mix, comment, False, progress)
                for other in others:
                    audio.save(other.soundtrack.audio, staged.candidate_wav(other.seed))
                    if self.extras.report:
                        _plot(staged.candidate_report(other.seed), self.section, other.soundtrack)
                _write_extras(staged, self.extras, self.section, best.soundtrack)
            self.clock.lap("mix")
            laps = self.clock.laps
            record = sidecar.build(
                clip=self.clip, section=self.section, outputs=self.outputs, staged=staged, tagger=self.tagger,
                generator=self.generator, hints=self.hints, tags=tags, candidates=ranked, mixed=mixed, seconds=laps,
                warnings=warnings, provenance=self.provenance,
            )  # fmt: skip
            sidecar.write(record, staged.sidecar)
        metadata = ResultMetadata(record["recipe"], best.seed, record["settings"], laps, tuple(record["warnings"]))
        return ScoreResult(self.outputs.video, tags, best.soundtrack, metadata, tuple(ranked), record)


def inpaint(
    path: Path | str,
    start: float,
    end: float,
    *,
    source: Path | str | None = None,
    **options: Any,
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
    from v2m.core.types import InpaintRequest

    original, options = _original_of(Path(path)), {"overwrite": True, **options}
    request = InpaintRequest(start, end, None if source is None else Path(source))
    controls = replace(options.pop("controls", None) or Controls(), inpaint=request)
    return score_video(original, controls=controls, **options)


def _original_of(path: Path) -> Path:
    """The video whose default output `path` is, where it lies beside it; else `path` itself."""
    if path.stem.endswith(".v2m"):
        stem = path.stem.removesuffix(".v2m")
        beside = sorted(
            other
            for other in path.parent.glob(f"{glob.escape(stem)}.*")
            if other.suffix.lower() in video.VIDEO_SUFFIXES
        )
        originals = [other for other in beside if other.stem == stem]
        if originals:
            return originals[0]
    return path


class StageClock:
    """Wall time of each stage in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 3), now


def _default_tagger(tagger: Tagger | None) -> TaggerBase:
    if tagger is None:
        from v2m.taggers.heuristic import Palette

        return Palette()
    return as_tagger(tagger)


def _default_generator(generator: MusicGenerator | None) -> GeneratorBase:
    if generator is None:
        from v2m.generators.sketch import Sketch

        return Sketch()
    return as_generator(generator)


def _refuse_unsupported(generator: GeneratorBase, extras: Extras, controls: Controls) -> None:
    wanted = controls.requested | {name for name in ("stems", "midi") if getattr(extras, name)}
    lacking = wanted - generator.capabilities
    if lacking:
        requested, available = (
            ", ".join(f"`{name}`" for name in sorted(names)) for names in (lacking, generator.capabilities - {"vocals"})
        )
        raise UsageError(
            f"the generator {generator.class_name} cannot do {requested}; it can do {available or 'none of these'}"
        )


def _prepare(tagger: TaggerBase, generator: GeneratorBase, section: Video, hints: Tags, controls: Controls) -> None:
    """Find what is missing before minutes of work, not after."""
    generator.prepare(hints, controls)
    generator.validate_video(section, controls)
    if not hints.is_complete:
        tagger.prepare()


def _output_path(clip: Video, out: Path | str | None) -> Path:
    default = mixer.default_output(clip)
    if out is None:
        return default
    return Path(out) / default.name if Path(out).is_dir() else Path(out)


def _crop(clip: Video, start: float | None, end: float | None) -> Video:
    try:
        return clip.crop(start, end)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _write_extras(staged: Outputs, extras: Extras, section: Video, soundtrack: Soundtrack) -> None:
    if extras.stems:
        for name, stem in soundtrack.stems.items():
            audio.save(stem, staged.stem(name))
    if extras.wav:
        audio.save(soundtrack.audio, staged.wav)
    if extras.midi:
        assert soundtrack.midi is not None, "a generator with the capability midi returned none"
        staged.midi.write_bytes(soundtrack.midi)
    if extras.markers:
        from v2m.pipeline import markers

        markers.write(staged.markers, section, soundtrack)
    if extras.report:
        _plot(staged.report, section, soundtrack)


def _plot(path: Path, section: Video, soundtrack: Soundtrack) -> None:
    from v2m.pipeline import report

    report.plot_report(path, section, soundtrack)
