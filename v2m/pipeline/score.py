"""One video in, one file out: open, tag, generate, mix, write."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from v2m.core import log_capture
from v2m.core.errors import UsageError
from v2m.core.progress import StageProgress, no_progress
from v2m.core.protocols import MusicGenerator, Tagger
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video
from v2m.media import audio, video
from v2m.media.video import Limits
from v2m.mixing import mixer
from v2m.mixing.mixer import MixConfig
from v2m.pipeline import inpaint_source, sidecar
from v2m.pipeline.outputs import Outputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extras:
    """What is written beside the video and its sidecar.

    Args:
        stems: The parts of the music as WAV files.
        midi: The score as a Standard MIDI File.
        markers: Sections and hits for an editor: "edl" for DaVinci Resolve, "otio" for OpenTimelineIO.
        report: A picture with thumbnails, waveform, cuts, beats, sections and loudness; one of each take.
        wav: The music by itself, as the generator wrote it, before it was mixed and mastered.
    """

    stems: bool = False
    midi: bool = False
    markers: Literal["edl", "otio"] | None = None
    report: bool = False
    wav: bool = False


@dataclass(frozen=True)
class Take:
    """One piece of music for the video and how well it fits, 0–1 (`v2m.analysis.sync_score`)."""

    seed: int
    score: Soundtrack
    fit: Mapping[str, float | None] = field(default_factory=dict)


def score_video(
    path: Path | str,
    out: Path | str | None = None,
    *,
    tagger: Tagger | None = None,
    generator: MusicGenerator | None = None,
    tags: Tags | None = None,
    controls: Controls | None = None,
    mix: MixConfig | None = None,
    extras: Extras | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    candidates: int = 1,
    retime: bool = True,
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    provenance: Mapping[str, Any] | None = None,
    stages: StageProgress = no_progress,
) -> dict[str, Any]:
    """Writes `path` with music to `out`, and a sidecar JSON beside it.

    Args:
        path: The video. It is only read.
        out: The file to write, or a folder for it; beside the video if not given. The default name has `.v2m` in it.
        tagger: Says what music would fit; measured from the picture if not given.
        generator: Writes the music; Sketch if not given.
        tags: Hints: every field set here wins over the tagger's. Where they are complete, the tagger is not asked.
        controls: What steers the music besides the tags.
        mix: How the music meets the clip's own sound, and how loud; its start and end are those below.
        extras: What else to write.
        limits: What input to accept.
        seed: The same seed gives the same music.
        candidates: How many takes to write; the best by `v2m.analysis.sync_score` goes into the video, the others beside it.
        retime: Whether music whose generator does not know its beats is moved onto the cuts (`v2m.pipeline.alignment`).
        start: Second of the video where the music begins.
        end: Second of the video where the music ends.
        overwrite: Whether files that exist may be replaced.
        provenance: Recipe and settings, for the sidecar.
        stages: Shows progress.

    Returns:
        The sidecar's contents.

    Raises:
        RefusedError: The input is not a video that can be scored.
        UsageError: The output exists, is the input, or an argument asks for what cannot be.
        MissingError: ffmpeg or weights are not there.
        OSError: The disk is full or the folder cannot be written.
    """
    from v2m.generators.sketch import Sketch
    from v2m.taggers.heuristic import Palette

    tagger, generator = tagger or Palette(), generator or Sketch()
    hints, mix, extras = tags or Tags(), replace(mix or MixConfig(), start=start, end=end), extras or Extras()
    if candidates < 1 or seed < 0:
        raise UsageError(f"candidates must be 1 or more and the seed 0 or more, not {candidates} and {seed}")
    _refuse_what_it_cannot(generator, extras, controls or Controls())
    seeds = range(seed, seed + candidates)
    clock = Clock()
    clip = video.open(path, limits or Limits())
    outputs = Outputs.plan(clip, _target(clip, out), extras, overwrite, seeds if candidates > 1 else ())
    span = _span(clip, start, end)
    if controls is not None and controls.inpaint is not None:
        controls = replace(controls, regenerate=inpaint_source.found(controls.inpaint, clip, span, outputs.video))
    with log_capture.capture_warnings() as said:
        _prepare(tagger, generator, span, hints, controls)
        with stages("Looking at the picture") as progress:
            found = hints if hints.is_complete else _tagged(tagger, span, hints, progress)
        _release(tagger)
        clock.lap("look")
        if found.vocals and "vocals" not in _abilities(generator):
            logger.warning("vocals were asked for: this generator plays instruments only")
        with stages("Writing the music") as progress:
            takes = _takes(
                generator, span, found, seeds, controls, stems=extras.stems, retime=retime, progress=progress
            )
        _release(generator)
    best = takes[0]
    clock.lap("music")
    with outputs.staged() as staged:
        with stages("Mixing and writing") as progress:
            mark = sidecar.mark(provenance)
            mixed = mixer.mix(clip, best.score.audio, staged.video, mix, mark, False, progress)
            for other in takes[1:]:
                audio.save(other.score.audio, staged.take(other.seed))
                if extras.report:
                    _draw(staged.take_report(other.seed), span, other.score)
            _write_extras(staged, extras, span, best.score)
        clock.lap("mix")
        record = sidecar.build(
            clip=clip, span=span, outputs=outputs, staged=staged, tagger=tagger, generator=generator, hints=hints,
            tags=found, takes=takes, mixed=mixed, seconds=clock.laps, warnings=said, provenance=provenance,
        )  # fmt: skip
        sidecar.write(record, staged.sidecar)
    return record


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 3), now


def _abilities(generator: MusicGenerator) -> frozenset[str]:
    return frozenset(getattr(generator, "steers", ()))


def _refuse_what_it_cannot(generator: MusicGenerator, extras: Extras, controls: Controls) -> None:
    wanted = controls.requested | {name for name in ("stems", "midi") if getattr(extras, name)}
    lacking = sorted(wanted - _abilities(generator))
    if lacking:
        able = sorted(_abilities(generator) - {"vocals"})
        asked, able = (", ".join(f"--{name}" for name in names) for names in (lacking, able))
        raise UsageError(
            f"the generator {type(generator).__name__} cannot do {asked}; it can do {able or 'none of these'}"
        )


def _prepare(tagger: Tagger, generator: MusicGenerator, span: Video, hints: Tags, controls: Controls | None) -> None:
    """What is missing is told before minutes of work, not after."""
    if prepare := getattr(generator, "prepare", None):
        prepare(hints, controls or Controls())
    if check := getattr(generator, "check", None):
        check(span, controls or Controls())
    if not hints.is_complete and (prepare := getattr(tagger, "prepare", None)):
        prepare()


def _tagged(tagger: Tagger, span: Video, hints: Tags, progress: ProgressFn) -> Tags:
    found = tagger.tag(span, hints, progress)
    return found if getattr(tagger, "keeps_hints", False) else found.overridden_by(hints)


def _release(part: Tagger | MusicGenerator) -> None:
    """Two models rarely fit side by side."""
    if release := getattr(part, "release", None):
        release()


def _target(clip: Video, out: Path | str | None) -> Path:
    usual = mixer.default_output(clip)
    if out is None:
        return usual
    return Path(out) / usual.name if Path(out).is_dir() else Path(out)


def _span(clip: Video, start: float | None, end: float | None) -> Video:
    try:
        return clip.crop(start, end)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _takes(
    generator: MusicGenerator,
    span: Video,
    tags: Tags,
    seeds: Sequence[int],
    controls: Controls | None,
    *,
    stems: bool,
    retime: bool,
    progress: ProgressFn,
) -> list[Take]:
    """A take for each seed, the best first; a single one is not measured. Those without beats are moved before that."""
    from v2m.analysis.sync_score import sync_score

    def write(number: int, seed: int) -> Soundtrack:
        def part(fraction: float) -> None:
            progress((number + fraction) / len(seeds))

        return generator.generate(span, tags, seed, stems=stems, controls=controls, progress=part)

    together = getattr(generator, "takes", None)
    if len(seeds) > 1 and together is not None:
        scores = together(span, tags, seeds, stems=stems, controls=controls, progress=progress)
    else:
        scores = [write(number, seed) for number, seed in enumerate(seeds)]
    if retime and (controls is None or controls.inpaint is None):  # what is kept of earlier music stays in place
        from v2m.pipeline.alignment.align import align_to_cuts

        scores = [align_to_cuts(score, span, tags.tempo) for score in scores]
    takes = [
        Take(seed, score, sync_score(score.audio, span.visual_features()).to_dict() if len(seeds) > 1 else {})
        for seed, score in zip(seeds, scores, strict=True)
    ]
    return sorted(takes, key=lambda take: -(take.fit.get("total") or 0.0))


def _write_extras(staged: Outputs, extras: Extras, span: Video, music: Soundtrack) -> None:
    if extras.stems:
        for name, stem in music.stems.items():
            audio.save(stem, staged.stem(name))
    if extras.wav:
        audio.save(music.audio, staged.wav)
    if extras.midi:
        assert music.midi is not None, "a generator that steers midi returned none"
        staged.midi.write_bytes(music.midi)
    if extras.markers:
        from v2m.pipeline import markers

        markers.write(staged.markers, span, music)
    if extras.report:
        _draw(staged.report, span, music)


def _draw(path: Path, span: Video, music: Soundtrack) -> None:
    from v2m.pipeline import report

    report.draw(path, span, music)
