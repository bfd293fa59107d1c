"""A tagger of your own: the brightness of the picture chooses between a night and a day.

    uv run infer.py clip.mp4 --tagger examples.custom_tagger.DayOrNight --tagger.threshold 0.3

A tagger is a class with the method `tag`. It inherits nothing. What the user sets (`--tags.genres jazz`) replaces the
tagger's words, so `tag` may ignore `hints`.
"""

from __future__ import annotations

from v2m.core.types import ProgressFn, Tags, Video


class DayOrNight:
    """Name slow music for dark videos and cheerful music for bright ones.

    Args:
        threshold: Mean brightness (0 to 1) from which a video counts as a day.
    """

    def __init__(self, threshold: float = 0.4) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold:g} must lie between 0 and 1")
        self.threshold = threshold

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags of `video`; the same video gives the same tags."""
        brightness = float(video.visual_features(progress).brightness.mean())
        # Pixels, for a model of your own: video.frames([0.0, 1.0], width=224) is (2, H, 224, 3) uint8 RGB.
        if brightness >= self.threshold:
            return Tags(
                caption=f"a bright picture ({brightness:.2f})",
                genres=["acoustic folk"],
                instruments=["acoustic guitar", "flute"],
                moods=["cheerful"],
                tempo=112,
                key="G major",
            )
        return Tags(
            caption=f"a dark picture ({brightness:.2f})",
            genres=["ambient"],
            instruments=["soft pads"],
            moods=["calm", "mysterious"],
            tempo=70,
            key="D minor",
        )
