"""Visual inputs of a model: encoded frames and visual events of a video, by window, as in training.

N frames or instants; … dimensions of a value.
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
from v2m.models.visual_conditioner import VisualInputs
from v2m.pretrained.vision import FrozenVisionEncoder

BATCH_FRAMES = 256  # frames in memory at a time


class VisualFrontend:
    """The vision encoder on its device, and the choice of frames for it."""

    def __init__(self, encoder: VisionEncoder, config: VisualInputConfig) -> None:
        self._encoder, self.config = encoder, config

    @classmethod
    def load(cls, model: V2M, name: str, device: torch.device) -> VisualFrontend:
        """Load the frontend of the model that was loaded as `name`.

        Raises:
            DependencyError: The encoder is missing, broken, or gives other tokens than the model was trained on.
        """
        conditioner, config = model.config.conditioner, model.visual_input
        assert conditioner is not None, "this model has no visual conditioner"
        if config is None:
            raise DependencyError(f"{name!r} has no visual input settings (no section visual_input in its config.yaml)")
        if config.event_channels and config.event_channels != EVENT_CHANNELS:
            raise DependencyError(
                f"{name!r} was trained on the event channels {', '.join(config.event_channels)}, and this v2m measures "
                f"{', '.join(EVENT_CHANNELS)}: use the v2m that it was trained with"
            )
        component = model.component("vision_encoder")
        assert component.folder is not None, "a component that was asked for has been fetched"
        encoder = FrozenVisionEncoder.load(
            component.folder, device, name=component.name or name,
            pooling=config.pooling, aspect=config.aspect,  # type: ignore[arg-type] - checked by `load`
            config=component.config, state=component.state,
        )  # fmt: skip
        expected = {"tokens a frame": conditioner.num_tokens, "numbers a token": conditioner.vision_dim}
        actual = {"tokens a frame": encoder.num_tokens, "numbers a token": encoder.dim}
        if conditioner.kind != "vidmuse":
            expected["event channels"], actual["event channels"] = conditioner.num_event_channels, len(EVENT_CHANNELS)
        differing = [
            f"{actual[key]} {key} instead of {expected[key]}" for key in expected if actual[key] != expected[key]
        ]
        if differing:
            raise DependencyError(
                f"the vision encoder of {name!r} does not fit the model: it gives {', '.join(differing)}"
            )
        return cls(encoder, config)

    def window_encoder(self, video: Video) -> Callable[[float, float], VisualInputs]:
        """Make `encode(start, end)` for windows of `video` in seconds; long-term frames are encoded once."""
        long_term = self._encode_frames(video, step_times(video.duration, self.config.num_long_term_frames))

        def encode(start: float, end: float) -> VisualInputs:
            end = min(end, video.duration)  # the last codec frame may reach beyond it
            times = start + step_times(end - start, step_count(end - start, self.config.fps))
            short_term = self._encode_frames(video, times)
            events = _event_features(video, start, end, self.config)
            return VisualInputs(
                *short_term.relative_to(start), *long_term.relative_to(start), *events.relative_to(start)
            )

        return encode

    def black_frame(self) -> VisualInputs:
        """Inputs of one black frame, VidMuse's negative; VidMuse adds no times, so one frame equals many."""
        black = _TimedFeatures(self._encoder.encode(np.zeros((1, 32, 32, 3), np.uint8)), np.zeros(1))
        return VisualInputs(*black.relative_to(0.0), *black.relative_to(0.0), *_TimedFeatures.empty().relative_to(0.0))

    def _encode_frames(self, video: Video, times: Floats) -> _TimedFeatures:
        width = self._encoder.decode_width(video.width, video.height)
        batches = [times[start : start + BATCH_FRAMES] for start in range(0, len(times), BATCH_FRAMES)]
        tokens = [self._encoder.encode(video.frames(batch.tolist(), width)) for batch in batches]
        return _TimedFeatures(torch.cat(tokens), times)


class _TimedFeatures(NamedTuple):
    """Values (N, …) with their times in seconds of the video (N,)."""

    values: Tensor
    times: Floats

    @classmethod
    def empty(cls) -> _TimedFeatures:
        return cls(torch.zeros(0, 0), np.zeros(0))

    def relative_to(self, start: float) -> tuple[Tensor, Tensor, Tensor]:
        """Values (1, N, …), times counted from `start` (1, N), and a full mask (1, N)."""
        device = self.values.device
        times = torch.tensor(self.times - start, dtype=torch.float32, device=device)[None]
        return self.values[None], times, torch.ones_like(times, dtype=torch.bool)


def _event_features(video: Video, start: float, end: float, config: VisualInputConfig) -> _TimedFeatures:
    if not config.event_channels:
        return _TimedFeatures.empty()
    values = torch.from_numpy(visual_event_features(video.visual_features(), start, end - start, config.event_rate))
    return _TimedFeatures(values, start + step_times(end - start, len(values)))
