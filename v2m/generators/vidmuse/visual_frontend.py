"""What a model that sees is shown of a video, window by window, as it was in training.

F frames, P tokens a frame, W their width, G frames of the whole video, R instants of rhythm, C what is measured
at each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.checkpoints import V2M, VisualInputConfig
from v2m.core.errors import DependencyError
from v2m.core.protocols import VisionEncoder
from v2m.core.timing import step_count, step_times
from v2m.core.types import Floats, Video
from v2m.models.visual.inputs import VisualInputs
from v2m.pretrained.vision import FrozenVisionEncoder

BATCH_FRAMES = 256  # frames in memory


class VisualFrontend:
    """The vision encoder on its device, and how frames are chosen for it."""

    def __init__(self, encoder: VisionEncoder, config: VisualInputConfig) -> None:
        self._encoder, self.config = encoder, config

    @classmethod
    def load(cls, model: V2M, name: str, device: torch.device) -> VisualFrontend:
        """Those of the model that was read as `name`.

        Raises:
            DependencyError: The encoder is missing, broken, or gives other tokens than the model was trained on.
        """
        sizes, shown = model.config.conditioner, model.visual_input
        assert sizes is not None, "this model does not see"
        if shown is None:
            raise DependencyError(
                f"{name!r} does not say how it was shown videos (no section shown in its config.yaml)"
            )
        if shown.event_channels and shown.event_channels != EVENT_CHANNELS:
            raise DependencyError(
                f"{name!r} was shown a rhythm of {', '.join(shown.event_channels)}, and this v2m measures "
                f"{', '.join(EVENT_CHANNELS)}: use the v2m that it was trained with"
            )
        part = model.component("vision_encoder")
        assert part.folder is not None, "a part that was asked for has been fetched"
        given = {"pooling": shown.pooling, "aspect": shown.aspect, "config": part.config, "state": part.state}
        vision = FrozenVisionEncoder.load(part.folder, device, name=part.name or name, **given)  # type: ignore[arg-type]
        wanted = {"tokens a frame": sizes.num_tokens, "numbers a token": sizes.vision_dim}
        has = {"tokens a frame": vision.num_tokens, "numbers a token": vision.dim}
        if sizes.kind != "vidmuse":
            wanted["things measured of the rhythm"], has["things measured of the rhythm"] = (
                sizes.num_event_channels,
                len(EVENT_CHANNELS),
            )
        differing = [f"{has[what]} {what} instead of {wanted[what]}" for what in wanted if has[what] != wanted[what]]
        if differing:
            raise DependencyError(f"the eyes of {name!r} do not fit it: they give {', '.join(differing)}")
        return cls(vision, shown)

    def window_encoder(self, video: Video) -> Callable[[float, float], VisualInputs]:
        """What is shown of the window of `video` from one second to another; the whole video is looked at once."""
        whole = self._encode_frames(video, step_times(video.duration, self.config.num_long_term_frames))

        def seen(begin: float, end: float) -> VisualInputs:
            end = min(end, video.duration)  # the last codec frame may reach beyond it
            near = self._encode_frames(video, begin + step_times(end - begin, step_count(end - begin, self.config.fps)))
            beats = _event_features(video, begin, end, self.config)
            return VisualInputs(*near.relative_to(begin), *whole.relative_to(begin), *beats.relative_to(begin))

        return seen

    def black_frame(self) -> VisualInputs:
        """A black frame, which VidMuse is led away from. Where all frames are alike, one is as good as sixty: none
        says when it is shown."""
        black = _TimedFeatures(self._encoder.encode(np.zeros((1, 32, 32, 3), np.uint8)), np.zeros(1))
        return VisualInputs(
            *black.relative_to(0.0),
            *black.relative_to(0.0),
            *_TimedFeatures(torch.zeros(0, 0), np.zeros(0)).relative_to(0.0),
        )

    def _encode_frames(self, video: Video, times: Floats) -> _TimedFeatures:
        width = self._encoder.decode_width(video.width, video.height)
        parts = [times[start : start + BATCH_FRAMES] for start in range(0, len(times), BATCH_FRAMES)]
        found = [self._encoder.encode(video.frames(part.tolist(), width)) for part in parts]
        return _TimedFeatures(torch.cat(found), times)


class _TimedFeatures(NamedTuple):
    """Something (N, …) with the seconds of the video that it is of."""

    values: Tensor
    times: Floats

    def relative_to(self, start: float) -> tuple[Tensor, Tensor, Tensor]:
        """(1, N, …), its seconds from `begin` (1, N), and a mask (1, N) of all of it."""
        device = self.values.device
        times = torch.tensor(self.times - start, dtype=torch.float32, device=device)[None]
        return self.values[None], times, torch.ones_like(times, dtype=torch.bool)


def _event_features(video: Video, begin: float, end: float, config: VisualInputConfig) -> _TimedFeatures:
    if not config.event_channels:
        return _TimedFeatures(torch.zeros(0, 0), np.zeros(0))
    values = torch.from_numpy(visual_event_features(video.visual_features(), begin, end - begin, config.event_rate))
    return _TimedFeatures(values, begin + step_times(end - begin, len(values)))
