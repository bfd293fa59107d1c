"""Generator over a model that is in memory already, such as one in training."""

from __future__ import annotations

import torch

from v2m.checkpoints import V2M
from v2m.core.errors import UsageError
from v2m.core.types import Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import SCORE_CAPABILITIES, GeneratorBase
from v2m.generators.musicgen_engine import MusicGenEngine
from v2m.generators.options import LMPrecision, WindowOptions
from v2m.generators.vidmuse_engine import VideoMusicEngine, VisualFrontend

STRIDE_RATIO = 0.6  # of the window, which is MusicGen's


class InMemoryGenerator(GeneratorBase):
    """Generates from tags, video, or both, as the model is conditioned; the model stays intact.

    `name` is the model's name in errors. `window` and `stride` are in seconds: None is the length that the model was
    trained on, and 0.6 windows. A `precision` of None is the device's default.

    Raises:
        UsageError: The windows do not suit the model, or it has neither a visual conditioner nor a text encoder.
    """

    def __init__(
        self,
        model: V2M,
        name: str,
        device: torch.device,
        *,
        sampling: SamplingConfig | None = None,
        window: float | None = None,
        stride: float | None = None,
        precision: LMPrecision | None = None,
    ) -> None:
        training_window, uses_video = model.config.segment_duration, model.config.conditioner is not None
        window = training_window if window is None else window
        stride = max(0.5, min(STRIDE_RATIO * window, window - 0.5)) if stride is None else stride
        self._options = WindowOptions(sampling or SamplingConfig(), window, stride)
        self._options.check_overlap()
        self._options.check_length(training_window)
        if not uses_video and not model.config.uses_text:
            raise UsageError(
                f"{name!r} has neither a visual conditioner nor a text encoder, so it cannot be conditioned on a video"
            )
        frontend = VisualFrontend.load(model, name, device) if uses_video else None
        self._engine = MusicGenEngine.from_model(model, name, device, precision, keep_model=True)
        if self._engine.writes_scores:
            self.capabilities = SCORE_CAPABILITIES
        self._video_engine = None if frontend is None else VideoMusicEngine(model, self._engine, frontend, device)

    @property
    def weights(self) -> tuple[WeightsInfo, ...]:  # type: ignore[override]  # of the engine, which loads lazily
        return self._engine.model.weights

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of exactly `video.duration` at the codec's rate; deterministic on one machine."""
        if self._video_engine is not None:
            return self._video_engine.generate(video, tags, self._options, seed=seed, stems=stems, progress=progress)
        return self._engine.generate(video, tags, None, self._options, seed=seed, stems=stems, progress=progress)
