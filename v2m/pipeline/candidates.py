"""Candidates: several soundtracks for one video, ranked by how well they follow the picture."""

from __future__ import annotations

from collections.abc import Sequence

from v2m.core.types import Controls, ProgressFn, Tags, Video
from v2m.generators.base import GeneratorBase
from v2m.pipeline.result import Candidate


def generate_candidates(
    generator: GeneratorBase,
    video: Video,
    tags: Tags,
    seeds: Sequence[int],
    controls: Controls | None,
    *,
    stems: bool,
    align_to_cuts: bool,
    progress: ProgressFn,
) -> list[Candidate]:
    """One candidate for each seed, the best first; a single one is not scored.

    Music without beats is aligned to the cuts before it is scored. Inpainted music is not: what is kept stays in place.
    """
    from v2m.analysis.synchrony import sync_score

    if len(seeds) == 1:
        soundtracks = [generator.generate(video, tags, seeds[0], stems=stems, controls=controls, progress=progress)]
    else:
        soundtracks = generator.generate_batch(video, tags, seeds, stems=stems, controls=controls, progress=progress)
    if align_to_cuts and (controls is None or controls.inpaint is None):
        from v2m.pipeline.alignment.align import align_to_cuts as align

        soundtracks = [align(soundtrack, video, tags.tempo) for soundtrack in soundtracks]
    candidates = [
        Candidate(
            seed,
            soundtrack,
            sync_score(soundtrack.audio, video.visual_features()).to_dict() if len(seeds) > 1 else {},
        )
        for seed, soundtrack in zip(seeds, soundtracks, strict=True)
    ]
    return sorted(candidates, key=lambda candidate: -(candidate.sync.get("total") or 0.0))
