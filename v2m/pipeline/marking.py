"""The watermark of a run: loaded before any work, and looked for in the finished file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Video
from v2m.media import audio as sound_files

if TYPE_CHECKING:
    from v2m.pretrained.watermark import Watermark


def prepare() -> Watermark:
    """Fetch and load the networks; DependencyError where they, or the package, are missing or broken."""
    from v2m.pretrained.watermark import Watermark, fetch

    return Watermark.load(fetch())


def read_back(watermark: Watermark, video: Path, section: Video) -> dict[str, Any]:
    """Return for the sidecar what the detector finds in the scored section of a written video."""
    from v2m.pretrained.watermark import MESSAGE, SAMPLE_RATE, WatermarkReport

    start, end = (
        seconds_to_samples(second, SAMPLE_RATE) for second in (section.start, section.start + section.duration)
    )
    try:
        sound = sound_files.load(video, SAMPLE_RATE, math.inf)
        report = watermark.detect(Audio(sound.samples[:, start:end], SAMPLE_RATE))
    except sound_files.SilentAudioError:
        report = WatermarkReport(0.0, 0)
    info = watermark.weights
    found = {"share": round(report.share, 4), "message": f"{report.message:04x}", "is_own": report.is_own}
    return {"weights": info.name, "license": info.license, "message": f"{MESSAGE:04x}", "found": found}
