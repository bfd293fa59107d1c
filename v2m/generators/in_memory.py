"""A model that is in memory already, such as one in training, as a generator: it writes to what it sees, if it sees."""

from __future__ import annotations

import torch

from v2m.checkpoints import V2M
from v2m.core.errors import UsageError
from v2m.core.types import Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.musicgen.engine import MusicGenEngine
from v2m.generators.musicgen.options import Precision, check_window, check_window_length
from v2m.generators.vidmuse.engine import VideoMusicEngine
from v2m.generators.vidmuse.visual_frontend import VisualFrontend

STRIDE_RATIO = 0.6  # of the window, which is MusicGen's


class InMemoryGenerator:
    """Told by the tags, by the video, or by both, as the model is. The model stays as it is, where it is.

    Args:
        model: What learns.
        name: Its own, in errors.
        device: Where it is.
        sampling: How the codes are drawn.
        window: Seconds that are written in one go; None is what the model was trained on.
        stride: Seconds from one window to the next; None is 0.6 windows.
        precision: Of the language model's weights; None is what suits the device.

    Raises:
        UsageError: The windows do not suit the model, or it neither sees nor reads.
        DependencyError: A frozen part of the model is missing, broken, or another's.
    """

    steers = frozenset()

    def __init__(
        self,
        model: V2M,
        name: str,
        device: torch.device,
        *,
        sampling: SamplingConfig | None = None,
        window: float | None = None,
        stride: float | None = None,
        precision: Precision | None = None,
    ) -> None:
        longest, sees = model.config.segment_duration, model.config.conditioner is not None
        window = longest if window is None else window
        stride = max(0.5, min(STRIDE_RATIO * window, window - 0.5)) if stride is None else stride
        check_window(window, stride)
        check_window_length(window, longest)
        if not sees and not model.config.uses_text:
            raise UsageError(f"{name!r} neither sees nor reads: there is nothing by which to write music for a video")
        self._options = {"sampling": sampling or SamplingConfig(), "window": window, "stride": stride}
        eyes = VisualFrontend.load(model, name, device) if sees else None
        self._engine = MusicGenEngine.from_model(model, name, device, precision, keep_model=True)
        self._video_engine = None if eyes is None else VideoMusicEngine(model, self._engine, eyes, device)

    @property
    def weights(self) -> tuple[WeightsInfo, ...]:
        return self._engine.weights

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,  # noqa: ARG002 - there are none, and they are not among what it steers
        controls: Controls | None = None,  # noqa: ARG002 - likewise
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration` at the codec's rate; the same arguments give the same bytes on one
        machine."""
        if self._video_engine is not None:
            return self._video_engine.generate(video, tags, seed=seed, progress=progress, **self._options)
        return self._engine.generate(video, tags, None, seed=seed, progress=progress, **self._options)
