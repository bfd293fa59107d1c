"""The watermark of a run: hidden in the music before it is mixed, and looked for in the finished file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.core.types import Audio
from v2m.media import audio as sound_files

if TYPE_CHECKING:
    from v2m.pretrained.watermark import Watermark


@dataclass(frozen=True)
class MarkedMusic:
    """Music with a watermark, and what finds it."""

    audio: Audio
    watermark: Watermark

    def read_back(self, video: Path) -> dict[str, Any]:
        """Return for the sidecar what the detector finds in the sound of a written video, after mix and codec."""
        from v2m.pretrained.watermark import MESSAGE, SAMPLE_RATE, WatermarkReport

        try:
            report = self.watermark.detect(sound_files.load(video, SAMPLE_RATE, math.inf))
        except sound_files.SilentAudioError:
            report = WatermarkReport(0.0, 0)
        info = self.watermark.weights
        found = {"share": round(report.share, 4), "message": f"{report.message:04x}", "is_own": report.is_own}
        return {"weights": info.name, "license": info.license, "message": f"{MESSAGE:04x}", "found": found}


def prepare() -> None:
    """Fetch the networks before any work; DependencyError where they, or the package, are missing."""
    from v2m.pretrained import watermark

    watermark.fetch()


def embed(music: Audio) -> MarkedMusic:
    """Return the music with v2m's watermark in it."""
    from v2m.pretrained.watermark import Watermark, fetch

    watermark = Watermark.load(fetch())
    return MarkedMusic(watermark.embed(music), watermark)
